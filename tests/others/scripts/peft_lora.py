"""Fine-tune an adapter with the Trainer, as peft's examples do: DoRA weights, the adapter saved at the end."""

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

set_seed(5)
tokenizer = AutoTokenizer.from_pretrained("llama")
base = AutoModelForCausalLM.from_pretrained("llama")
config = LoraConfig(
    r=4,
    lora_alpha=8,
    lora_dropout=0.1,
    target_modules=["q_proj", "v_proj"],
    use_dora=True,
    task_type="CAUSAL_LM",
)
model = get_peft_model(base, config)
model.print_trainable_parameters()
data = load_dataset("sft", split="train")
data = data.map(lambda rows: tokenizer(rows["text"]), batched=True, remove_columns=["text"])
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        "out",
        max_steps=10,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=data,
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
model.save_pretrained("out")
