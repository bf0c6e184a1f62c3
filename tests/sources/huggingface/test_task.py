from __future__ import annotations

import pytest

from tritonforge.sources.huggingface.task import TASKS, task_of


@pytest.mark.parametrize(
    ("name", "main", "task"),
    [
        ("BertModel", "input_ids", "feature-extraction"),
        ("ViTModel", "pixel_values", "feature-extraction"),
        ("BertForSequenceClassification", "input_ids", "text-classification"),
        ("Wav2Vec2ForSequenceClassification", "input_values", "audio-classification"),
        ("ASTForAudioClassification", "input_values", "audio-classification"),
        ("BertForTokenClassification", "input_ids", "token-classification"),
        ("BertForQuestionAnswering", "input_ids", "question-answering"),
        ("ResNetForImageClassification", "pixel_values", "image-classification"),
        ("Owlv2ForObjectDetection", "input_ids", "zero-shot-object-detection"),
        ("DetrForObjectDetection", "pixel_values", None),
        ("WhisperForConditionalGeneration", "input_features", "automatic-speech-recognition"),
        ("T5ForConditionalGeneration", "input_ids", None),
        ("Wav2Vec2ForCTC", "input_values", "automatic-speech-recognition"),
        ("LlamaForCausalLM", "input_ids", "text-generation"),
        ("GPT2LMHeadModel", "input_ids", "text-generation"),
        ("BertForMaskedLM", "input_ids", None),
    ],
)
def test_the_class_says_what_a_network_is_for(name: str, main: str, task: str | None) -> None:
    assert task_of(name, main) == task
    assert task is None or task in TASKS
