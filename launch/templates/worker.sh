#!/usr/bin/env bash
# {{ job }} on one worker of a TPU slice; tpu.sh calls it: prepare, start, status, stop.
set -euo pipefail
cd
self="$PWD/$(basename "$0")"
mkdir -p {{ job|sh }}
cd {{ job|sh }}
command=(
{% for line in lines %}
  {{ line|sh_line }}
{% endfor %}
)

running() {
  [[ -f pid ]] && kill -0 "$(cat pid)" 2>/dev/null
}

prepare() {
  if running; then
    return # what it runs stays as it is
  fi
{% if image %}
{% if image.split("/")[0].endswith(("pkg.dev", "gcr.io")) %}
  sudo gcloud auth configure-docker {{ image.split("/")[0]|sh }} --quiet
{% endif %}
  sudo docker pull {{ image|sh }}
{% else %}
  tar -xzf ../{{ job|sh }}.tar.gz
  # the machine's Python is 3.10, and the trainer needs 3.11: uv brings one
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --allow-existing --python 3.11 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python -c constraints.txt ".[tpu,gcs]"
{% endif %}
}

start() {
  if running; then
    echo "running already"
    return
  fi
  rm -f exit_code
  nohup setsid bash "$self" run "$1" >>log 2>&1 </dev/null &
  echo "$!" >pid
  echo "started"
}

# In a session of its own; SIGTERM goes to the supervisor, which tells the training.
run() {
  child="" code=2 # where a key cannot be had, nothing has started
  trap 'echo "$code" >exit_code' EXIT
{% for secret in secrets %}
  {{ secret }}="$(gcloud secrets versions access latest --secret={{ secret }})"
  export {{ secret }}
{% endfor %}
{% if sweep %}
  TPU_WORKER_ID="$(curl -sf -H 'Metadata-Flavor: Google' \
    http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number)"
  export TPU_WORKER_ID LAUNCH_START="$1"
{% endif %}
{% if image %}
  sudo{% if environment %} --preserve-env={{ environment|join(",") }}{% endif %} docker run --rm --name {{ job|sh }} --privileged --net=host \
    {% for name in environment %}-e {{ name }} {% endfor %}{{ image|sh }} "${command[@]}" &
{% else %}
  PATH="$PWD/.venv/bin:$PATH" "${command[@]}" &
{% endif %}
  child=$!
  trap tell TERM INT
  while true; do
    wait "$child" && code=0 || code=$?
    kill -0 "$child" 2>/dev/null || break
  done
}

tell() {
{% if image %}
  sudo docker kill --signal=TERM {{ job|sh }} || true
{% else %}
  kill -TERM "$child" || true
{% endif %}
}

status() {
  if running; then
    echo "running"
  elif [[ -f exit_code ]]; then
    echo "ended with $(cat exit_code)"
  elif [[ -f pid ]]; then
    echo "ended with 6" # without a word: the machine was started again
  else
    echo "not started"
  fi
}

stop() {
  if running; then
    kill -TERM "$(cat pid)"
  fi
  status
}

case "${1:-}" in
  prepare) prepare ;;
  start) start "$2" ;;
  run) run "$2" ;;
  status) status ;;
  stop) stop ;;
  *) exit 2 ;;
esac
