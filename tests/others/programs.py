"""The programs: others' own command lines, and scripts of our wording in the style of theirs.

Each is given what ``material.make`` makes.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
_COMMON = (
    *("--output_dir", "out", "--use_cpu", "--max_steps", "10", "--save_steps", "2", "--logging_steps", "1"),
    *("--per_device_train_batch_size", "2", "--report_to", "none", "--disable_tqdm", "True"),
    *("--learning_rate", "1e-2", "--seed", "5"),
)
_TRL = (
    *("--model_name_or_path", "llama", *_COMMON),
    *("--bf16", "False", "--gradient_checkpointing", "False"),
)
_LORA = ("--use_peft", "--lora_r", "4", "--lora_alpha", "8", "--lora_target_modules", "q_proj", "v_proj")
WEIGHTS, ADAPTER = "out/model.safetensors", "out/adapter_model.safetensors"


@dataclass(frozen=True)
class Program:
    """A program and its arguments.

    Attributes:
        name: how it is called in reports.
        words: behind ``python`` or the launcher; of a command of its own, all of them.
        weights: the file with its final weights.
        script: copied into the folder; None where it is a module or a command.
        insert: whether it has a loop of its own, which `vl init` edits first.
        die_at: the step at which a rank is killed.
        needs: the module that has to be installed; "" for what the tests need anyway.
        install: how to get it.
        own: whether it is a command of the package's own, which takes care of ranks itself.
        ranks: on how many it is tried.
        variables: more of its environment.
    """

    name: str
    words: tuple[str, ...]
    weights: str = WEIGHTS
    script: Path | None = None
    insert: bool = False
    die_at: int = 7
    needs: str = ""
    install: str = ""
    own: bool = False
    ranks: tuple[int, ...] = (1,)
    variables: tuple[tuple[str, str], ...] = ()


def is_there(program: Program) -> bool:
    """Tell whether this Python has what a program needs."""
    return not program.needs or importlib.util.find_spec(program.needs) is not None


def _trl(script: str, *more: str, name: str = "", weights: str = WEIGHTS) -> Program:
    words = ("-m", f"trl.scripts.{script}", *_TRL, *more)
    return Program(name or f"trl {script}", words, weights, needs="trl", install="pip install trl peft")


def _script(file: str, name: str, *words: str, weights: str = WEIGHTS, **more: str) -> Program:
    return Program(name, (file, *words), weights, SCRIPTS / file, **more)  # type: ignore[arg-type]


SFT = Program(
    "trl sft",
    ("-m", "trl.scripts.sft", "--dataset_name", "sft", "--max_length", "64", *_TRL),
    needs="trl",
    install="pip install trl peft",
    ranks=(1, 2),
)
SFT_LORA = _trl(
    "sft", "--dataset_name", "sft", "--max_length", "64", *_LORA, name="trl sft, LoRA", weights=ADAPTER
)
_PAIRS = ("--dataset_name", "preferences", "--max_length", "64")
DPO = _trl("dpo", *_PAIRS)
DPO_LORA = _trl("dpo", *_PAIRS, *_LORA, name="trl dpo, LoRA", weights=ADAPTER)
DPO_SYNCED = _trl(
    *("dpo", *_PAIRS, "--sync_ref_model", "True", "--ref_model_sync_steps", "3"),
    name="trl dpo, synced reference model",
)
REWARD = _trl("reward", *_PAIRS)
GRPO = _trl(
    *("grpo", "--dataset_name", "prompts", "--reward_funcs", "rewards.even", "--num_generations", "2"),
    *("--max_completion_length", "8", "--steps_per_generation", "3"),
)
LM = Program(
    "in the style of run_clm.py",
    (
        "run_lm.py",
        "--config_name",
        "llama",
        "--tokenizer_name",
        "llama",
        "--train_file",
        "text.txt",
        *_COMMON,
    ),
    script=SCRIPTS / "run_lm.py",
    ranks=(1, 2),
)
_BEST = (
    "--eval_strategy",
    "steps",
    "--eval_steps",
    "2",
    "--load_best_model_at_end",
    "--metric_for_best_model",
)


def _task(task: str, *more: str) -> Program:
    words = ("--task", task, "--config_name", "bert", *_COMMON, *more)
    return _script("run_tasks.py", f"in the style of run_{task}.py", *words)


MLM, GLUE, QA = _task("mlm"), _task("glue", *_BEST, "accuracy"), _task("qa", *_BEST, "exact")
CHECKPOINTING = Program(
    "in the style of by_feature/checkpointing.py",
    ("checkpointing.py", "--train_file", "rows.pt", "--config", "bert"),
    "out/model.pt",
    SCRIPTS / "checkpointing.py",
    insert=True,
    die_at=10,
    ranks=(1, 2),
    variables=(("VAULTLAYER_SAVE_EVERY", "4 steps"),),  # the first save by the clock comes behind its end
)
PEFT = _script("peft_lora.py", "in the style of peft's examples", weights=ADAPTER, needs="peft")
SENTENCES = _script(
    *("sentences.py", "sentence-transformers"),
    needs="sentence_transformers",
    install="pip install sentence-transformers",
)
SETFIT = _script("few_shot.py", "setfit", needs="setfit", install="pip install setfit")
UNSLOTH = _script(
    *("unsloth_sft.py", "Unsloth, SFT with LoRA"),
    weights=ADAPTER,
    needs="unsloth",
    install="pip install unsloth",
)
LLAMA_FACTORY = Program(
    "LLaMA-Factory, SFT with LoRA",
    ("llamafactory-cli", "train", "llamafactory.yaml"),
    ADAPTER,
    needs="llamafactory",
    install="pip install llamafactory",
    own=True,
    variables=(("DISABLE_VERSION_CHECK", "1"),),
)
AXOLOTL = Program(
    "axolotl, SFT",
    ("axolotl", "train", "axolotl.yaml"),  # all weights: how it begins an adapter differs from run to run
    needs="axolotl",
    install="pip install axolotl",
    own=True,
    variables=(("AXOLOTL_DO_NOT_TRACK", "1"),),
)
SWIFT = Program(
    "ms-swift, SFT with LoRA",
    (
        *("swift", "sft", "--model", "llama", "--model_type", "llama", "--template", "default"),
        *(
            "--tuner_type",
            "lora",
            "--dataset",
            "chat.jsonl",
            "--split_dataset_ratio",
            "0",
            "--torch_dtype",
            "float32",
        ),
        *("--add_version", "false", "--use_cpu", "true", "--gradient_checkpointing", "false"),
        *("--max_length", "128", "--max_steps", "10", "--save_steps", "2", "--logging_steps", "1"),
        *(
            "--per_device_train_batch_size",
            "2",
            "--learning_rate",
            "1e-2",
            "--report_to",
            "none",
            "--seed",
            "5",
        ),
        *("--output_dir", "out"),
    ),
    "out/checkpoint-10/adapter_model.safetensors",
    needs="swift",
    install="pip install ms-swift",
    own=True,
)
PROGRAMS = (
    *(SFT, SFT_LORA, DPO, DPO_LORA, DPO_SYNCED, REWARD, GRPO),
    *(LM, MLM, GLUE, QA, CHECKPOINTING, PEFT),
    *(SENTENCES, SETFIT, AXOLOTL, LLAMA_FACTORY, SWIFT, UNSLOTH),
)
