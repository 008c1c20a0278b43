hf jobs run --flavor a10g-small --timeout 4h --attempts 5 --secrets AWS_ACCESS_KEY_ID --secrets AWS_SECRET_ACCESS_KEY \
  --env AWS_REGION=us-east-1 --env VAULTLAYER_VAULT=s3://bucket/my-run my-image vl run python train.py
