vl run --on ray --gpus 1 --vault s3://bucket/my-run -- python train.py
