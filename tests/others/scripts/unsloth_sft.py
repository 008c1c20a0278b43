"""Fine-tune an adapter as Unsloth's notebooks do."""

from unsloth import FastLanguageModel  # isort: skip  # ahead of trl, which it patches

from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

model, tokenizer = FastLanguageModel.from_pretrained("llama", max_seq_length=64, load_in_4bit=False)
model = FastLanguageModel.get_peft_model(
    model, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], random_state=3407
)
args = SFTConfig(
    "out",
    max_steps=10,
    save_steps=2,
    logging_steps=1,
    per_device_train_batch_size=2,
    learning_rate=1e-2,
    max_length=64,
    dataset_text_field="text",
    report_to="none",
    seed=5,
)
trainer = SFTTrainer(
    model=model, processing_class=tokenizer, train_dataset=load_dataset("sft", split="train"), args=args
)
trainer.train()
model.save_pretrained("out")
