# SPDX-License-Identifier: Apache-2.0
# Starts the four services as processes for a script. Sourced, with the repository's root as the working
# directory; everything ends with the script.

services_folder=
services_pids=()

stop_services() {
  local pid
  # The daemon last: the others give their leases back.
  for pid in "${services_pids[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  services_pids=()
  [ -z "$services_folder" ] || rm -rf "$services_folder"
}

# start_service NAME FLAG...: returns when it is ready; its ready line is in $services_folder/NAME.ready.
start_service() {
  local name=$1 ready=$services_folder/$1.ready
  shift
  mkfifo "$ready.pipe"
  build/release/bin/maskkv-"$name" --listen "unix:$services_folder/$name.grpc" \
    --metrics-listen 127.0.0.1:0 "$@" >"$ready.pipe" 2>"$services_folder/$name.log" &
  services_pids=("$!" "${services_pids[@]}")
  if ! read -r line <"$ready.pipe"; then
    cat "$services_folder/$name.log" >&2
    return 1
  fi
  printf '%s\n' "$line" >"$ready"
}

# start_services MODEL THREADS [FLAG...]: cached, budgetd, prefill, decode; the flags are of the two that
# load the model. Sets services_decode to the address.
start_services() {
  local model=$1 threads=$2
  shift 2
  services_folder=$(mktemp -d)
  trap stop_services EXIT
  local cache=(--cache "unix:$services_folder/cached.grpc"
    --cache-socket "$services_folder/cached.sock" --budget "unix:$services_folder/budgetd.grpc")
  start_service cached --socket "$services_folder/cached.sock" --capacity-bytes 256MiB \
    --budget "unix:$services_folder/budgetd.grpc"
  start_service budgetd --model "$model" --state "$services_folder/budget.json" \
    --audit "$services_folder/audit.jsonl"
  start_service prefill --model "$model" --threads "$threads" "${cache[@]}" "$@"
  start_service decode --model "$model" --threads "$threads" "${cache[@]}" "$@" \
    --prefill "unix:$services_folder/prefill.grpc"
  services_decode=unix:$services_folder/decode.grpc
}

# metrics_of NAME: the address of a service's metrics.
metrics_of() {
  sed -n 's/.*"metrics": *"\([^"]*\)".*/\1/p' "$services_folder/$1.ready"
}
