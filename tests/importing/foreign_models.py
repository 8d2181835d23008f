"""Small models of other families with tokenizers of theirs, written as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers as trainer

TEXTS = [
    "subroutine axpy(n, a, x, y)\n  integer, intent(in) :: n\n  real, intent(in) :: a, x(n)\n",
    "#pragma omp parallel for reduction(+:sum)\nfor (int i = 0; i < n; i++) {\n\tsum += x[i] * y[i];\n}\n",
    "MPI_Init(&argc, &argv);\nMPI_Comm_rank(MPI_COMM_WORLD, &rank);\n// été 日本\n",
] * 4
SPLIT = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def byte_level(size: int, specials: list[str], nfc: bool = False) -> Tokenizer:
    """As Llama 3's, or with `nfc` as Qwen2's; `size` counts the special tokens."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=not nfc))
    tokenizer.normalizer = normalizers.NFC() if nfc else None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainer.BpeTrainer(vocab_size=size - len(specials), initial_alphabet=alphabet)
    )
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in specials])
    return tokenizer


def llama3(size: int = 400) -> tuple[Tokenizer, dict[str, str]]:
    """Byte level, with a post-processor that puts bos first; returns the parts of its tokens besides."""
    tokenizer = byte_level(size, ["<|begin_of_text|>", "<|end_of_text|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))],
    )
    return tokenizer, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}


def qwen2(size: int = 400) -> tuple[Tokenizer, dict[str, str]]:
    """Byte level with NFC, no bos, end and padding the same; the marks for FIM are not flagged as special."""
    tokenizer = byte_level(size - 4, ["<|endoftext|>", "<|im_start|>"], nfc=True)
    pieces = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|file_sep|>"]
    tokenizer.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in pieces])
    return tokenizer, {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


def llama2(size: int = 600) -> tuple[Tokenizer, dict[str, str]]:
    """Byte fallback, U+2581 for a space and one before the text; control tokens inside the vocabulary."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.train_from_iterator(
        [*TEXTS, "<s> </s> s> s> s>"] * 3, trainer.BpeTrainer(vocab_size=size, special_tokens=pieces)
    )
    tree = models.BPE(
        vocab=trained.get_vocab(with_added_tokens=True), merges=_merges(trained), unk_token="<unk>",
        byte_fallback=True, fuse_unk=True,
    )  # fmt: skip
    tokenizer = Tokenizer(tree)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in ("<unk>", "<s>", "</s>")]
    )
    return tokenizer, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def llama2_metaspace(size: int = 600) -> tuple[Tokenizer, dict[str, str]]:
    """The same as transformers' own class for it makes it."""
    tokenizer, roles = llama2(size)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first", split=False)
    return tokenizer, roles


def _merges(trained: Tokenizer) -> list[tuple[str, str]]:
    import json

    return [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]


FAMILIES = {"llama3": llama3, "qwen2": qwen2, "llama2": llama2, "llama2-metaspace": llama2_metaspace}


def write_tokenizer(directory: Path, family: str) -> Tokenizer:
    """Save a family's tokenizer as transformers does."""
    from transformers import PreTrainedTokenizerFast

    tokenizer, roles = FAMILIES[family]()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(directory)
    return tokenizer


def write_model(
    directory: Path, family: str = "llama3", shard_size: str = "5GB", rows: int = 0, **settings: Any
) -> Path:
    """Save a small random model; `rows` of its embedding besides those that its tokenizer needs."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    tokenizer = write_tokenizer(directory, family)
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size() + rows,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        **settings,
    }
    torch.manual_seed(7)
    model = (
        Qwen2ForCausalLM(Qwen2Config(**sizes))
        if family == "qwen2"
        else LlamaForCausalLM(LlamaConfig(**sizes))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms at one and biases at zero could be confounded
                parameter.uniform_(0.5, 1.5) if "norm" in name else parameter.normal_(0, 0.5)
    model.save_pretrained(directory, max_shard_size=shard_size)
    return directory
