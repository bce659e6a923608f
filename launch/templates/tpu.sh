#!/usr/bin/env bash
# {{ job }}: one training on every worker of {{ "a queued resource" if queued else "a TPU slice" }}, through gcloud.
#
#   bash tpu.sh start        make it, copy the trainer, start; {{ "make it again when it is taken away" if queued else "returns at once" }}
#   bash tpu.sh status       what each worker does
#   bash tpu.sh logs [N]     the output of worker N (0), as it comes
#   bash tpu.sh wait         until the training has ended; its exit code
#   bash tpu.sh stop         SIGTERM: the run saves and ends with 83
#   bash tpu.sh delete       give the machines back; the run's directory stays
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

name={{ job|sh }}
zone={{ zone|sh }}
accelerator={{ accelerator|sh }}
runtime={{ runtime|sh }}
poll_seconds="${POLL_SECONDS:-30}"
where=(--zone="$zone"{% if project %} --project={{ project|sh }}{% endif %})
{% if queued %}
max_restarts={{ max_restarts }}
kind=queued-resources
everyone=(--node=all --worker=all)
{% else %}
kind=tpu-vm
everyone=(--worker=all)
{% endif %}

tpu() {
  gcloud compute tpus "$kind" "$@" "${where[@]}"
}

say() {
  printf 'launch: %s\n' "$*" >&2
}

# NONE where there is no such TPU, UNKNOWN where gcloud could not tell.
state() {
  local answer
  if answer="$(tpu describe "$name" --format='value(state{{ ".state" if queued }})' 2>&1)"; then
    printf '%s\n' "${answer##*$'\n'}"
  elif [[ "$answer" == *NOT_FOUND* ]]; then
    echo NONE
  else
    say "gcloud: ${answer##*$'\n'}"
    echo UNKNOWN
  fi
}

create() {
  say "making $name: $accelerator in $zone"
{% if queued %}
  tpu create "$name" {% if slices > 1 %}--node-count={{ slices }} --node-prefix="$name"{% else %}--node-id="$name"{% endif %} \
    --accelerator-type="$accelerator" --runtime-version="$runtime"{{ " --spot" if spot }}
{% else %}
  tpu create "$name" \
    --accelerator-type="$accelerator" --version="$runtime"{{ " --spot" if spot }}
{% endif %}
}

delete() {
  tpu delete "$name"{{ " --force" if queued }} --quiet
}

on_workers() {
  tpu ssh "$name" "${everyone[@]}" --command="$1"
}

on_worker() {
  tpu ssh "$name" {{ "--node=0 " if queued }}--worker="$1" --command="$2"
}

# A machine that has just been made may not answer at once.
patiently() {
  local tries=0
  until "$@"; do
    tries=$((tries + 1))
    ((tries < 5)) || return 1
    sleep "$poll_seconds"
  done
}

prepare() {
{% if image %}
  tpu scp "$here/worker.sh" "$name:$name.sh" "${everyone[@]}" &&
{% else %}
  # the files that git tracks, as they are now
  git -C {{ repository|sh }} ls-files -z |
    tar -C {{ repository|sh }} --null -T - -czf "$here/$name.tar.gz" &&
    tpu scp "$here/$name.tar.gz" "$name:$name.tar.gz" "${everyone[@]}" &&
    tpu scp "$here/worker.sh" "$name:$name.sh" "${everyone[@]}" &&
{% endif %}
    on_workers "bash $name.sh prepare"
}

begin() {
  patiently prepare &&
    on_workers "bash $name.sh start $(date +%s)" &&
    say "started; follow it with: bash $here/tpu.sh logs"
}

# One code for all workers: the cause of the end before what followed from it.
# Fails where a worker does not answer; prints nothing while one of them runs.
end_code() {
  local answer code
  answer="$(on_workers "bash $name.sh status")" || return 1
  if [[ "$answer" == *running* ]]; then
    return 0
  fi
  for code in {{ final_codes|join(" ") }} 83 6 0; do
    if grep -q "^ended with $code\$" <<<"$answer"; then
      echo "$code" && return 0
    fi
  done
  return 1
}

{% if queued %}
# Ends with the run's code; machines that were taken away are made again.
start() {
  local restarts=0 was_active=no now code
  while true; do
    now="$(state)"
    case "$now" in
      NONE)
        create
        was_active=no
        ;;
      ACTIVE)
        if [[ "$was_active" == no ]]; then
          say "$name is ACTIVE"
          if begin; then was_active=yes; else say "its workers do not answer yet"; fi
        elif code="$(end_code)" && [[ -n "$code" ]]; then
          if [[ "$code" != 6 && "$code" != 83 ]]; then
            finish "$code"
          fi
          # the workers have restarted it as often as they may, or are being taken away
          sleep "$poll_seconds"
          if [[ "$(state)" == ACTIVE ]]; then
            count_restart "the training ended with $code"
            was_active=no
          fi
        fi
        ;;
      SUSPENDED)
        count_restart "$name was taken away"
        delete
        ;;
      FAILED)
        if [[ "$was_active" == no ]]; then
          tpu describe "$name" >&2 || true
          say "$name could not be made; delete it with: bash $here/tpu.sh delete"
          exit 2
        fi
        count_restart "$name has FAILED"
        delete
        ;;
      *) ;; # WAITING_FOR_RESOURCES, PROVISIONING, SUSPENDING and the like pass
    esac
    sleep "$poll_seconds"
  done
}

count_restart() {
  restarts=$((restarts + 1))
  if ((restarts > max_restarts)); then
    say "$1, and $max_restarts restarts are all there may be"
    exit 83
  fi
  say "$1; restart $restarts of $max_restarts"
}

finish() {
  say "the training ended with $1; the last lines of worker 0:"
  on_worker 0 "tail -n 40 $name/log" || true
  delete || say "$name is still there; delete it with: bash $here/tpu.sh delete"
  exit "$1"
}
{% else %}
start() {
  local now
  now="$(state)"
  case "$now" in
    NONE) create ;;
    READY) say "$name is there" ;;
    *)
      say "$name is $now, not READY; see: gcloud compute tpus tpu-vm list --zone=$zone"
      exit 2
      ;;
  esac
  begin
}
{% endif %}

wait_for_end() {
  local code=""
  while [[ -z "$code" ]]; do
    code="$(end_code)" || say "a worker does not answer"
    [[ -n "$code" ]] || sleep "$poll_seconds"
  done
  say "ended with $code"
  exit "$code"
}

case "${1:-}" in
  start) start ;;
  status) on_workers "bash $name.sh status" ;;
  logs) on_worker "${2:-0}" "tail -n +1 -F $name/log" ;;
  wait) wait_for_end ;;
  stop) on_workers "bash $name.sh stop" ;;
  delete) delete ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
