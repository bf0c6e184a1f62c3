#!/bin/bash
# collect.sh PRESENT OUT BACKEND...: copy Triton, the backends, and the libraries that they are linked to, to OUT, but
# for what the smaller image has already (PRESENT lists its files). What is opened by name at run time, as CUDA and cuDNN
# do among themselves, is not seen: it has to be in the smaller image, and in NVIDIA's it is.
set -euo pipefail
present=$1 out=$2
shift 2
triton=/opt/tritonserver
mkdir -p "$out/etc/ld.so.conf.d" "$out$triton/bin"
roots=("$triton/bin" "$triton/lib")
for folder in "$triton/caches" "$triton/include"; do
  if [ -d "$folder" ]; then roots+=("$folder"); fi
done
python=
for backend in "$@"; do
  folder=$triton/backends/$backend
  if [ ! -d "$folder" ]; then
    echo "this Triton has no backend '$backend'; it has: $(ls "$triton/backends" | tr '\n' ' ')" >&2
    exit 1
  fi
  roots+=("$folder")
  # A backend that is written in Python, and the Python backend itself, need an interpreter.
  if [ "$backend" = python ] || [ -e "$folder/model.py" ]; then python=yes; fi
done
if [ -n "$python" ] && [ -d "$triton/backends/python" ]; then roots+=("$triton/backends/python"); fi
if [ -n "$python" ]; then
  interpreter=$(readlink -f "$(command -v python3)")
  roots+=("$interpreter")
  while IFS= read -r folder; do
    if [ -d "$folder" ]; then roots+=("$folder"); fi
  done < <(python3 -c 'import sys, sysconfig
print(*dict.fromkeys([sysconfig.get_path("stdlib"), *(path for path in sys.path if path)]), sep="\n")')
fi

# Everything that is kept, one path a line, without the / in front.
kept=/kept
: > "$kept"
keep() {
  local path
  path=$(readlink -f "$(dirname "$1")")/$(basename "$1")   # /lib may be a link to /usr/lib, and is to stay one
  if grep -qxF -- "$path" "$present" || grep -qxF -- "${path#/}" "$kept"; then return; fi
  echo "${path#/}" >> "$kept"
  if [ -L "$path" ]; then keep "$(readlink -f "$path")"; fi
}

for root in "${roots[@]}"; do
  if [ -d "$root" ]; then echo "${root#/}" >> "$kept"; else keep "$root"; fi
done
find "${roots[@]}" -type f \( -name '*.so' -o -name '*.so.*' -o -perm /111 \) -print0 \
  | xargs -0 -n 50 ldd 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u > /linked || true
while IFS= read -r library; do keep "$library"; done < /linked
sort -u "$kept" | tar -C / -cf - -T - | tar -C "$out" -xpf -
{ echo "$triton/lib"; sed 's|/[^/]*$||' /linked | sort -u; } > "$out/etc/ld.so.conf.d/tritonforge.conf"
if [ -n "$python" ] && ! grep -qxF -- "$interpreter" "$present"; then
  ln -sf "$interpreter" "$out$triton/bin/python3"   # the Python backend takes the first python3 of PATH
fi
