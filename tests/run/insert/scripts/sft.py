"""Supervised fine-tuning with TRL; the model is made from a config, the text by hand."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer

alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"]
bytewise = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bytewise.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="</s>", pad_token="</s>")

set_seed(10)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.1,
    )
)
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=Dataset.from_dict({"text": [f"{n} and {n} is {2 * n}" for n in range(32)]}),
    args=SFTConfig(
        "output",
        max_steps=6,
        save_steps=2,
        per_device_train_batch_size=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        disable_tqdm=True,
    ),  # tiny, for a CPU
)
trainer.train()
torch.save(trainer.model.state_dict(), "model.pt")
