"""A trainer from a module that isn't there to be read, and trainer.save_state()."""

from somewhere_else import AnswerTrainer
from transformers import TrainingArguments

trainer = AnswerTrainer(model=None, args=TrainingArguments("out"))
trainer.train()
trainer.save_state()
