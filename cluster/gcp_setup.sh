#!/usr/bin/env bash
# What gcp.yaml names, once for a project: a bucket, a secret, two identities, and a network that
# lets in SSH from this machine's address and nothing else.
#
#   BUCKET=my-sweeps PROJECT=my-project REGION=us-central1 bash cluster/gcp_setup.sh
#
# Needs gcloud with the Owner or Editor and IAM Admin roles, and Ray here for its token. Running it
# again is safe: what is there is kept, and SSH is opened to today's address instead.
set -euo pipefail
: "${BUCKET:?name of the bucket that holds sweeps}" "${PROJECT:?id}" "${REGION:?as in gcp.yaml}"
export CLOUDSDK_CORE_PROJECT="$PROJECT" CLOUDSDK_CORE_DISABLE_PROMPTS=1
here="$(cd "$(dirname "$0")" && pwd)"
there() { "$@" > /dev/null 2>&1; }

gcloud services enable compute.googleapis.com iam.googleapis.com secretmanager.googleapis.com \
  cloudresourcemanager.googleapis.com

# --- the bucket, closed to the public
there gcloud storage buckets describe "gs://$BUCKET" || gcloud storage buckets create \
  "gs://$BUCKET" --location "$REGION" --uniform-bucket-level-access --public-access-prevention

# --- the secret: Ray's token, and the keys that are set here
if ! there gcloud secrets describe sftray; then
  RAY_AUTH_TOKEN="$(ray get-auth-token --generate 2> /dev/null)" python3 -c '
import json, os
names = ("RAY_AUTH_TOKEN", "HF_TOKEN", "WANDB_API_KEY")
print(json.dumps({name: os.environ[name] for name in names if os.environ.get(name)}))' |
    gcloud secrets create sftray --data-file=-
fi

# --- the identities: workers reach the bucket and the secret, the head starts workers besides
for name in sftray-worker sftray-head; do
  email="$name@$PROJECT.iam.gserviceaccount.com"
  there gcloud iam service-accounts describe "$email" || gcloud iam service-accounts create "$name"
  gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" \
    --member "serviceAccount:$email" --role roles/storage.objectUser > /dev/null
  gcloud secrets add-iam-policy-binding sftray \
    --member "serviceAccount:$email" --role roles/secretmanager.secretAccessor > /dev/null
done
head="serviceAccount:sftray-head@$PROJECT.iam.gserviceaccount.com"
gcloud projects add-iam-policy-binding "$PROJECT" --condition None \
  --member "$head" --role roles/compute.instanceAdmin.v1 > /dev/null
gcloud iam service-accounts add-iam-policy-binding \
  "sftray-worker@$PROJECT.iam.gserviceaccount.com" \
  --member "$head" --role roles/iam.serviceAccountUser > /dev/null

# --- the network: SSH from here, everything between the nodes, nothing else
there gcloud compute networks describe sftray ||
  gcloud compute networks create sftray --subnet-mode custom
there gcloud compute networks subnets describe sftray --region "$REGION" ||
  gcloud compute networks subnets create sftray --network sftray --region "$REGION" \
    --range 10.128.0.0/20 --enable-private-ip-google-access
there gcloud compute firewall-rules describe sftray-nodes ||
  gcloud compute firewall-rules create sftray-nodes --network sftray --allow all \
    --source-tags sftray --target-tags sftray
mine="$(curl -fsS --max-time 10 https://checkip.amazonaws.com)"
if there gcloud compute firewall-rules describe sftray-ssh; then
  gcloud compute firewall-rules update sftray-ssh --source-ranges "$mine/32"
else
  gcloud compute firewall-rules create sftray-ssh --network sftray --allow tcp:22 \
    --source-ranges "$mine/32" --target-tags sftray
fi

sed -i.bak "s/PROJECT-EDIT/$PROJECT/g; s/us-central1/$REGION/g" "$here/gcp.yaml" &&
  rm "$here/gcp.yaml.bak"
echo "cluster/gcp.yaml: project $PROJECT, region $REGION; --storage gs://$BUCKET/sftray"
