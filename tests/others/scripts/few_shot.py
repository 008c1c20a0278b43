"""Train a few-shot classifier: its body by pairs of texts, then its head, which takes no steps."""

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression
from transformers import set_seed

set_seed(5)
encoder = Transformer("bert", max_seq_length=32)
body = SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension())], device="cpu")
model = SetFitModel(model_body=body, model_head=LogisticRegression(), labels=["even", "odd"])
data = Dataset.from_dict({"text": [f"number {n}" for n in range(16)], "label": [n % 2 for n in range(16)]})
args = TrainingArguments(
    "out",
    batch_size=4,
    max_steps=10,
    save_steps=2,
    logging_steps=1,
    body_learning_rate=1e-2,
    report_to="none",
    show_progress_bar=False,
    seed=5,
)
trainer = Trainer(model=model, args=args, train_dataset=data)
trainer.train()
model.save_pretrained("out")
