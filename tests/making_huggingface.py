"""Tiny networks, tokenizers and processors of transformers, made from its own configurations and saved as it saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXT = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
PICTURE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
SOUND = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}
DECODER = {**TEXT, "num_attention_heads": 4, "num_key_value_heads": 2}
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", TEXT),
    "bert-classes": ("BertForSequenceClassification", "BertConfig", TEXT),
    "bert-tokens": ("BertForTokenClassification", "BertConfig", TEXT),
    "bert-answers": ("BertForQuestionAnswering", "BertConfig", TEXT),
    "bert-masked": ("BertForMaskedLM", "BertConfig", TEXT),
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", {**TEXT, "type_vocab_size": 1}),
    "distilbert": (
        "DistilBertModel",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40},
    ),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", PICTURE),
    "vit-features": ("ViTModel", "ViTConfig", PICTURE),
    "owlv2": (
        "Owlv2ForObjectDetection",
        "Owlv2Config",
        {"text_config": {**TEXT, "max_position_embeddings": 8}, "vision_config": PICTURE, "projection_dim": 16},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            "vocab_size": 60,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "max_source_positions": 50,
            "max_target_positions": 20,
            "num_mel_bins": 8,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
    ),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", SOUND),
    "wav2vec2-ctc": ("Wav2Vec2ForCTC", "Wav2Vec2Config", SOUND),
    "ast": ("ASTForAudioClassification", "ASTConfig", {**PICTURE, "max_length": 64, "num_mel_bins": 32}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", DECODER),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2}),
}
"""The class, its configuration's class, and sizes that make it tiny."""


def network(folder: Path, name: str, **settings: Any) -> Path:
    """The network called ``name`` with the same random weights every time, saved below ``folder``."""
    from tritonforge.sources.huggingface.quiet import import_transformers

    import_transformers()
    import torch
    import transformers

    kind, config, sizes = NETWORKS[name]
    torch.manual_seed(0)
    made = getattr(transformers, kind)(getattr(transformers, config)(**sizes, **settings))
    made.eval().save_pretrained(folder / name)
    return folder / name


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "jumps", "over", "lazy", "dog", "##s", ".", ",")


def bert_tokenizer(folder: Path, **settings: Any) -> Path:
    """A lower-casing WordPiece tokenizer of a few words, with marks around each text."""
    from tritonforge.sources.huggingface.quiet import import_transformers

    import_transformers()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{
            "unk_token": "[UNK]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
            "model_max_length": 32,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            **settings,
        },
    ).save_pretrained(folder)
    return folder


def byte_tokenizer(folder: Path, **settings: Any) -> Path:
    """A tokenizer of bytes that marks nothing and has no padding token, as GPT-2's."""
    from tritonforge.sources.huggingface.quiet import import_transformers

    import_transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0, **{letter: index + 1 for index, letter in enumerate(alphabet)}}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=made, **{"eos_token": "<|endoftext|>", "model_max_length": 24, **settings}
    ).save_pretrained(folder)
    return folder
