"""What the first release (0.1.0) said in the same situations: each message that was rewritten, as it was.

Kept beside today's in messages.md, so that who changes a message sees what was wrong with the one before it.
"""

from __future__ import annotations

_CLAIM = "file:///home/me/vault claimed with token {}"
_TRAINS_NOT = (
    "the vault {} can't be used, so it is unknown which checkpoint to go on from, and training doesn't start at step 0 "
    "in silence: {}. Check the address, the network and the credentials and start again; to train without a vault, "
    "leave out resume="
)
_FENCED = (
    "file:///home/me/vault: another process claimed this vault (token 2, ours is 1) and continues the run; nothing "
    "that this process saves from now on counts"
)
_DIGEST = "data/1/checkpoint-{0}/model.safetensors: its content doesn't have the digest in its manifest"
_PASSED_OVER = (
    "warning: checkpoint-{0} (log entry {1}) can't be resumed from, the one before is tried: " + _DIGEST
)

BEFORE: dict[tuple[str, str], tuple[str, ...]] = {
    # A start
    ("", "an empty vault"): (_CLAIM.format(1),),
    ("", "going on, on a new disk"): (
        _CLAIM.format(4),
        "checkpoint-4 (log entry 3) restored and verified: SIZE fetched, SIZE were here; the run goes on from step 4",
    ),
    ("", "another process has written to the vault a moment ago"): (
        "warning: the last entry of file:///home/me/vault is only SPAN old: if its writer is still alive, it is fenced "
        "now and stops; two runs can't share a vault",
        _CLAIM.format(3),
    ),
    ("", "VAULT@2 goes back, and started again goes on"): (
        "(at each start) checkpoint-2 (log entry 2) restored and verified: …; the run goes on from step 2",
        "(at each start) checkpoint-4 retired and deleted: the run went on from an older one",
    ),
    ("", "a fork of another run"): ("(there were no forks)",),
    ("", "the newest checkpoint is damaged"): (_PASSED_OVER.format(4, 3),),
    # Saves
    ("", "saves that follow each other fast"): (
        "(at each save) checkpoint-4 committed to file:///home/me/vault: SIZE in SPAN",
        "(at each save) checkpoint-2 retired and deleted: older than the last 2",
        "(at each save that came too soon) warning: checkpoint-3 is abandoned: checkpoint-4 is newer and the upload "
        "before it isn't done; exposure: SPAN and 1 steps since the last commit",
    ),
    ("", "another start takes the vault"): (f"FencedError: {_FENCED}",),
    # The end
    ("", "the vault is out of reach at the end"): (
        "(nothing for 30 minutes, exit code 0) warning: uploads aren't done after 1800 s (flush_timeout); exposure: …; "
        "what waits stays in /home/me/out/_vaultlayer, and the next start on this disk goes on from it",
    ),
    ("The end", "Ctrl-C"): (
        "training saves and stops at step 3, and what is under way is drained: interrupted (SIGINT): training saves "
        "and stops; once more ends it at once; there is no deadline",
        "KeyboardInterrupt: interrupted (SIGINT): training saves and stops; once more ends it at once",
    ),
    ("", "SIGTERM, as a scheduler sends it"): (
        "warning: SIGTERM announces the end of this process within SPAN (grace)",
        "training saves and stops at step 3, and what is under way is drained: SIGTERM announces the end of this "
        "process within SPAN (grace); SPAN are left, and no upload was measured yet",
    ),
    ("", "a run that is over is started again"): (
        "this run is already over, at step 2 of 2: no step is trained; ask for more steps to go on",
    ),
    # A start that is refused
    ("", "the vault is a file"): (
        "VaultUnreachableError: "
        + _TRAINS_NOT.format("file:///home/me/vault", "open: /home/me/vault is not a folder"),
    ),
    ("", "the bucket doesn't exist"): (
        "VaultUnreachableError: "
        + _TRAINS_NOT.format(
            "s3://my-bucket/run",
            "list log/: the bucket doesn't exist (create it, or check its name, AWS_REGION and AWS_ENDPOINT_URL)",
        ),
    ),
    ("", "the network is down"): (
        "VaultUnreachableError: " + _TRAINS_NOT.format("s3://my-bucket/run", "list log/: no answer"),
    ),
    ("", "output_dir as the vault"): ("(taken without a word)",),
    ("", "a folder of one's own as the vault"): (
        "(taken without a word; files of one's own below data/ were deleted)",
    ),
    ("", "a step of a mistyped vault"): ("file:///home/me/vautl is empty: the run starts fresh",),
    ("", "every checkpoint is damaged"): (
        _PASSED_OVER.format(2, 2),
        "NoUsableCheckpointError: file:///home/me/vault holds 1 checkpoint(s) and none can be resumed from, so nothing "
        f"was loaded: {_DIGEST.format(2)}. Look with `vl verify file:///home/me/vault`; to start over, name an empty "
        "vault",
    ),
    ("", "two runs in one output_dir"): ("(taken without a word)",),
    # Settings and addresses
    ("", "bandwidth='fast'"): (
        "SettingsError: 'fast' is no bandwidth: give bytes per second, such as '50MB' or '1.5GiB'",
    ),
    ("", "grace=-1"): ("SettingsError: grace=-1: use seconds, 0 or more",),
    ("", "resume='gss://bucket/x'"): ("VaultUriError: vaults of kind gss:// are not supported; …",),
    ("", "resume='runs/llama@lastest'"): (
        "file:///home/me/runs/llama@lastest is empty: the run starts fresh",
    ),
    ("", "resume='runs/llama@ 40'"): ("file:///home/me/runs/llama@ 40 is empty: the run starts fresh",),
    # Wrong use
    ("", "Trainer(resume={'vault': 's3://bucket/run'})"): (
        "SettingsError: resume={'vault': 's3://bucket/run'} can't be used: give a vault's URI, True, Settings, None or "
        "False",
    ),
    ("", "Trainer(resume=True)"): (
        "SettingsError: resume=True means the vault that VAULTLAYER_VAULT names, and that isn't set",
    ),
    ("", "VaultLayerCallback(True), and no variable"): (
        "TypeError: expected str, bytes or os.PathLike object, not bool",
    ),
    ("", "Checkpointer({}): a dict"): (
        "SettingsError: no vault is named: give its URI, or set VAULTLAYER_VAULT",
    ),
    ("", "VAULTLAYER_KEEP_BEST=maybe"): ("(taken without a word)",),
    ("", "VAULTLAYER_GRACE=soon"): ("SettingsError: VAULTLAYER_GRACE='soon' can't be used for grace",),
    ("", "VAULTLAYER_KEEP_LAST=few"): (
        "SettingsError: VAULTLAYER_KEEP_LAST='few' can't be used for keep_last",
    ),
    ("", "VAULTLAYER_KEEPLAST: a misspelt variable"): ("(taken without a word)",),
    ("", "a vault inside output_dir"): ("(taken without a word)",),
    ("", "output_dir inside the vault"): ("(taken without a word)",),
    # vl run
    ("", "exception before the first step"): (
        "[vl] stop: rank 0 raised ValueError; it failed before its first step, so a restart would fail in the same way",
    ),
    ("", "vault out of reach"): (
        "[vl] attempt 1: rank 0 raised VaultUnreachableError before its first step; restarting in SPAN: it goes on "
        "from the start, as nothing is committed yet",
    ),
    # The command line
    ("", "vl ls vaut"): ("exit code 0", "There is no vault at file:///home/me/vaut yet."),
}
"""By chapter ("": whichever it is in) and name of the situation: the lines that have changed; in brackets what was done
instead of saying something.
"""
