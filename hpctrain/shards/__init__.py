"""Token shards in HDF5."""
