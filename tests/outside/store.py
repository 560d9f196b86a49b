"""Has another implementation of S3 take what Sublet delivers: moto, which computes every signature again.

Usage: store.py. Reads the environment that every suite has; SUBLET_DATA is the cloud's data directory. The store is
started here, on loopback.
"""

import hashlib
import json
import os
import pathlib
import sys

# So many calls need no right signature: those that make the bucket and the key. It is read when moto is imported.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"

import boto3
from botocore.config import Config
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from cloud import OPERATOR, ask, chat, eventually, judge, see

BUCKET, REGION = "finance", "eu-central-1"
SECRETS = pathlib.Path(os.environ["SUBLET_DATA"]) / "secrets"
SCHEDULES = "/operator/v1/export_schedules"


def started():
    """A store with a bucket, and the key of somebody who may write to it. From then on it asks for signatures."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    free = {"endpoint_url": url, "region_name": REGION, "aws_access_key_id": "x", "aws_secret_access_key": "x"}
    iam = boto3.client("iam", **free)
    iam.create_user(UserName="sublet")
    key = iam.create_access_key(UserName="sublet")["AccessKey"]
    allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="sublet", PolicyName="write", PolicyDocument=policy)
    boto3.client("s3", **free).create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    SECRETS.mkdir(exist_ok=True)
    (SECRETS / "moto").write_text(key["SecretAccessKey"])
    (SECRETS / "moto-wrong").write_text("another secret")
    known = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    path = Config(s3={"addressing_style": "path"})
    return url, key["AccessKeyId"], boto3.client("s3", endpoint_url=url, region_name=REGION, config=path, **known)


def schedule(url, access_key, prefix, secret="moto", **more):
    target = {"kind": "s3", "endpoint": url, "region": REGION, "bucket": BUCKET, "prefix": prefix,
              "access_key_id": access_key, "secret": secret}
    body = {"dataset": "focus", "version": "1.4", "cadence": "daily", "target": target, **more}
    return json.loads(ask("POST", SCHEDULES, OPERATOR, body)[0])["id"]


def last_run(id):
    runs = see(f"{SCHEDULES}/{id}", OPERATOR)["runs"]
    return runs[0] if runs else None


def check_delivery(url, access_key, s3):
    chat(5)
    for dataset, form in [("focus", "csv"), ("focus", "parquet"), ("journal", "beancount")]:
        more = {} if dataset == "focus" else {"version": None}
        id = schedule(url, access_key, f"{dataset}/{form}", dataset=dataset, format=form, **more)
        run = eventually(f"the {dataset} as {form}", lambda: last_run(id))
        assert run["problem"] is None, run
        content = s3.get_object(Bucket=BUCKET, Key=f"{dataset}/{form}/{run['file']}")["Body"].read()
        manifest = f"{dataset}/{form}/{run['file']}.manifest.json"
        manifest = json.loads(s3.get_object(Bucket=BUCKET, Key=manifest)["Body"].read())
        sums = {run["sha256"], manifest["sha256"], hashlib.sha256(content).hexdigest()}
        assert len(sums) == 1 and manifest["bytes"] == len(content) > 0, (sums, manifest)


def check_unfinished(url, access_key, s3):
    """What an attempt that died left is aborted by the next one, and nothing else is."""
    id = schedule(url, access_key, "unfinished")
    run = eventually("a delivery", lambda: last_run(id))
    own = s3.create_multipart_upload(Bucket=BUCKET, Key=f"unfinished/{run['file']}")
    other = s3.create_multipart_upload(Bucket=BUCKET, Key=f"unfinished/{run['file']}.other")
    s3.upload_part(Bucket=BUCKET, Key=own["Key"], UploadId=own["UploadId"], PartNumber=1, Body=b"half")
    ask("POST", f"{SCHEDULES}/{id}/run", OPERATOR)
    eventually("the next delivery", lambda: last_run(id)["attempt"] > run["attempt"])
    left = [upload["UploadId"] for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]
    assert left == [other["UploadId"]], left


def check_signatures(url, access_key, s3):
    for name, key, secret, says in [
        ("wrong-secret", access_key, "moto-wrong", "SignatureDoesNotMatch"),
        ("wrong-key", "AKIAIOSFODNN7EXAMPLE", "moto", "InvalidAccessKeyId"),
    ]:
        id = schedule(url, key, name, secret)
        run = eventually(f"the refusal of the {name}", lambda: last_run(id))
        assert says in run["problem"] and "another secret" not in run["problem"], run
        assert not s3.list_objects_v2(Bucket=BUCKET, Prefix=name).get("Contents"), name
        ask("DELETE", f"{SCHEDULES}/{id}", OPERATOR)


def main():
    store = started()
    checks = [
        ("moto has what was delivered, as the manifest says", lambda: check_delivery(*store)),
        ("what nobody finished is aborted", lambda: check_unfinished(*store)),
        ("moto refuses what is signed wrongly, and it is shown", lambda: check_signatures(*store)),
    ]
    return judge(checks)


if __name__ == "__main__":
    sys.exit(main())
