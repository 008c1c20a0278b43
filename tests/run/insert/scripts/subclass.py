import torch, transformers
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments, set_seed

class Weighted(transformers.Trainer):
	def compute_loss(self, model, inputs, *args, **kwargs):
		loss = super().compute_loss(model, inputs, *args, **kwargs)
		if isinstance(loss, tuple):
			return 0.5 * loss[0], loss[1]
		return 0.5 * loss

set_seed(9)
config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (32, 8))]
args = TrainingArguments("output", max_steps=8, save_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True)
trainer = Weighted(LlamaForCausalLM(config), args, train_dataset=rows)
trainer.train()
torch.save(trainer.model.state_dict(), "model.pt")
