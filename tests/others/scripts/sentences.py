"""Train a sentence encoder on pairs, with evaluation and the best model loaded at the end."""

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import set_seed

set_seed(5)
encoder = Transformer("bert", max_seq_length=32)
model = SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension())], device="cpu")
lines = [f"{number} and {number} is {2 * number}" for number in range(64)]
data = Dataset.from_dict({"anchor": lines, "positive": [line[::-1] for line in lines]})
args = SentenceTransformerTrainingArguments(
    "out",
    max_steps=10,
    save_steps=2,
    eval_steps=2,
    eval_strategy="steps",
    load_best_model_at_end=True,
    per_device_train_batch_size=4,
    logging_steps=1,
    learning_rate=1e-2,
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    seed=5,
)
trainer = SentenceTransformerTrainer(
    model=model,
    args=args,
    train_dataset=data,
    eval_dataset=data.select(range(16)),
    loss=MultipleNegativesRankingLoss(model),
)
trainer.train()
model.save_pretrained("out")
