"""Verify: proofs that layouts agree and that a resumed run equals a straight one."""
