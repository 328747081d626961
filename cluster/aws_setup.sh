#!/usr/bin/env bash
# What aws.yaml names, once for an account and region: a bucket, a secret, two identities, and a
# security group that lets in SSH from this machine's address and nothing else.
#
#   BUCKET=my-sweeps REGION=us-east-1 bash cluster/aws_setup.sh
#
# Needs the AWS CLI with rights on S3, IAM, EC2 and Secrets Manager, and Ray here for its token.
# Running it again is safe: what is there is kept, and SSH is opened to today's address as well.
set -euo pipefail
: "${BUCKET:?name of the bucket that holds sweeps}" "${REGION:?as in aws.yaml}"
export AWS_DEFAULT_REGION="$REGION" AWS_PAGER=""
here="$(cd "$(dirname "$0")" && pwd)"
account="$(aws sts get-caller-identity --query Account --output text)"

# --- the bucket, closed to the public as new ones are
if ! aws s3api head-bucket --bucket "$BUCKET" 2> /dev/null; then
  aws s3 mb "s3://$BUCKET"
fi

# --- the secret: Ray's token, and the keys that are set here
if ! aws secretsmanager describe-secret --secret-id sftray > /dev/null 2>&1; then
  file="$(umask 077 && mktemp)" # a command line would show it to everybody on this machine
  trap 'rm -f "$file"' EXIT
  RAY_AUTH_TOKEN="$(ray get-auth-token --generate 2> /dev/null)" python3 -c '
import json, os
names = ("RAY_AUTH_TOKEN", "HF_TOKEN", "WANDB_API_KEY")
print(json.dumps({name: os.environ[name] for name in names if os.environ.get(name)}))' > "$file"
  aws secretsmanager create-secret --name sftray --secret-string "file://$file" > /dev/null
fi

# --- the identities: workers reach the bucket and the secret, the head starts workers besides
role() { # role NAME POLICY
  local trust='{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
    "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'
  if ! aws iam get-role --role-name "$1" > /dev/null 2>&1; then
    aws iam create-role --role-name "$1" --assume-role-policy-document "$trust" > /dev/null
    aws iam create-instance-profile --instance-profile-name "$1" > /dev/null
    aws iam add-role-to-instance-profile --instance-profile-name "$1" --role-name "$1"
  fi
  aws iam put-role-policy --role-name "$1" --policy-name sftray --policy-document "$2"
}
store='{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
    "Resource": "arn:aws:s3:::'"$BUCKET"'"},
  {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject",
    "s3:AbortMultipartUpload"], "Resource": "arn:aws:s3:::'"$BUCKET"'/*"},
  {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue",
    "Resource": "arn:aws:secretsmanager:'"$REGION:$account"':secret:sftray-*"}'
scale='{"Effect": "Allow", "Action": ["ec2:RunInstances", "ec2:CreateTags", "ec2:Describe*"],
    "Resource": "*"},
  {"Effect": "Allow", "Action": ["ec2:TerminateInstances", "ec2:StopInstances"], "Resource": "*",
    "Condition": {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": "sftray"}}},
  {"Effect": "Allow", "Action": "ssm:GetParameters",
    "Resource": "arn:aws:ssm:'"$REGION"'::parameter/aws/service/deeplearning/*"},
  {"Effect": "Allow", "Action": "iam:PassRole",
    "Resource": "arn:aws:iam::'"$account"':role/sftray-worker"}'
# an account that has never had a spot machine lacks this role, and the head may not make it
aws iam create-service-linked-role --aws-service-name spot.amazonaws.com > /dev/null 2>&1 || true
role sftray-worker '{"Version": "2012-10-17", "Statement": ['"$store"']}'
role sftray-head '{"Version": "2012-10-17", "Statement": ['"$store, $scale"']}'

# --- the security group: SSH from here, everything between the nodes, nothing else
group="$(aws ec2 describe-security-groups --filters Name=group-name,Values=sftray \
  --query 'SecurityGroups[0].GroupId' --output text)"
if [ "$group" = None ]; then
  group="$(aws ec2 create-security-group --group-name sftray --description sftray \
    --query GroupId --output text)"
  aws ec2 authorize-security-group-ingress --group-id "$group" --protocol=-1 \
    --source-group "$group" > /dev/null
fi
mine="$(curl -fsS --max-time 10 https://checkip.amazonaws.com)"
aws ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 22 \
  --cidr "$mine/32" > /dev/null 2>&1 || echo "SSH from $mine was open already"

sed -i.bak "s/sg-EDIT/$group/; s/us-east-1/$REGION/g" "$here/aws.yaml" && rm "$here/aws.yaml.bak"
echo "cluster/aws.yaml: region $REGION, security group $group; --storage s3://$BUCKET/sftray"
