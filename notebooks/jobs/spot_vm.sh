#!/bin/bash
# An image with the driver, Python and your packages; the code in /opt/training.
cd /opt/training
export VAULTLAYER_VAULT=s3://bucket/my-run VAULTLAYER_SAVE_EVERY=auto HOME=/root
vl doctor "$VAULTLAYER_VAULT" && vl run -- python train.py
[ $? -eq 75 ] || shutdown -h now  # done, stopped for good, or nothing to train into: stop paying
