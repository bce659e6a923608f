#!/usr/bin/env bash
# {{ job }} through xpk, on a cluster that xpk made: the same command, image and restarts.
{% if secrets %}
# xpk writes values of variables into the manifest: for {{ secrets|join(", ") }}
# start jobset.yaml instead, which names the cluster's secret.
{% endif %}
set -euo pipefail
xpk workload create \
  --workload={{ job|sh }} \
{% if cluster %}
  --cluster={{ cluster|sh }} \
{% else %}
  --cluster="${CLUSTER:?the name of the GKE cluster}" \
{% endif %}
{% if project %}
  --project={{ project|sh }} \
{% endif %}
{% if zone %}
  --zone={{ zone|sh }} \
{% endif %}
  --tpu-type={{ accelerator|sh }} --num-slices={{ slices }}{{ " --spot" if spot }} \
  --docker-image={{ image|sh }} \
  --max-restarts={{ max_restarts }} --restart-on-exit-codes=6,83 \
  --termination-grace-period-seconds={{ grace_seconds }} \
  --command={{ command|sh_line|sh }}
