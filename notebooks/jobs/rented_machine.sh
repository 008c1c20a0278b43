#!/bin/bash
# The startup command of a template; the code in /opt/training, the keys of the bucket in the template's variables.
cd /opt/training
export VAULTLAYER_SAVE_EVERY=auto VAULTLAYER_GRACE=10
exec vl run --vault s3://bucket/my-run --grace 10 -- python train.py
