#!/bin/sh
# The notebooks on ARM64, emulated by QEMU, on MovieLens-100K against the outputs stored on x86-64.
#
#     make reproduce-arm64                 all four: an hour of the processor
#     sh tests/notebooks/arm64.sh 02_als   one
#
# Wants root on Debian or Ubuntu on x86-64, the packages debootstrap and qemu-user-static, and 2 GB in build/arm64, which
# stay. In the root of an ARM64 Debian 12, which is unpacked but not set up, its Python runs with the pins, which the pip
# of .venv chooses for ARM64. Where torch's build for the CPU cannot be had, the newest plain one without CUDA is, 2.10.
# What torch prints to stderr about the emulated processor does not count; how many lines that are is said.
set -eu
suite=$(cd "$(dirname "$0")/../.." && pwd)
root=$suite/build/arm64
packages=$root/usr/local/lib/python3.11/dist-packages
binfmt=/proc/sys/fs/binfmt_misc
emulation='NNPACK|cpuinfo|/sys/devices/system/cpu|xbyak_aarch64'

stop() { echo "error: $*" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || stop "expected x86-64, got $(uname -m); on ARM64 itself: make verify"
[ "$(id -u)" = 0 ] || stop "expected root, to enter another root"
for program in debootstrap qemu-aarch64-static unshare chroot; do
  command -v "$program" >/dev/null || stop "no $program: apt-get install debootstrap qemu-user-static"
done

if [ ! -e "$root/unpacked" ]; then
  rm -rf "$root"
  debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm "$root"
  for package in "$root"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -xk -C "$root" 2>/dev/null || true # what is there is kept
  done
  [ -x "$root/usr/bin/python3" ] || stop "no Python was unpacked into $root"
  touch "$root/unpacked"
fi

for_arm64() {
  "$suite/.venv/bin/python" -m pip install --quiet --no-deps --only-binary=:all: --target "$packages" --upgrade \
    --implementation cp --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_26_aarch64 \
    --platform manylinux_2_24_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 "$@"
}
if [ ! -e "$root/ready" ] || [ "$suite/requirements.txt" -nt "$root/ready" ]; then
  grep -v ^torch== "$suite/requirements.txt" > "$root/pins.txt"
  for_arm64 -r "$root/pins.txt"
  for_arm64 --index-url https://download.pytorch.org/whl/cpu --retries 1 "$(grep ^torch== "$suite/requirements.txt")" ||
    for_arm64 'torch<2.11'
  touch "$root/ready"
fi

rm -rf "$root/suite"
mkdir -p "$root/suite/data" "$root/suite/notebooks" "$root/tmp"
cp -r "$suite/mflib" "$suite/tests" "$root/suite"
cp "$suite"/notebooks/*.ipynb "$root/suite/notebooks"
cp -rL "$suite/data/ml-100k" "$root/suite/data"
if [ $# -gt 0 ]; then # only this notebook
  find "$root/suite/tests/notebooks/ml-100k" -name '*.ipynb' ! -name "$1.ipynb" -delete
fi

# The kernel of this system is told who runs programs for ARM64; it forgets in the end.
[ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
if [ ! -e $binfmt/qemu-aarch64 ]; then
  trap 'echo -1 > $binfmt/mflib-arm64' EXIT
  trap 'exit 1' INT TERM
  printf '%s' ':mflib-arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:'\
'\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'\
"$(command -v qemu-aarch64-static):F" > $binfmt/register
fi
export QEMU_CPU=neoverse-n1
unshare --mount sh -c "
  mount -t proc proc '$root/proc' && mount --rbind /dev '$root/dev' &&
  chroot '$root' /usr/bin/env -i PATH=/usr/bin HOME=/tmp LANG=C.UTF-8 QEMU_CPU=$QEMU_CPU OMP_NUM_THREADS=1 PYTHONPATH=/suite \
    python3 -c 'import platform, torch; print(platform.machine(), \"Python\", platform.python_version(), \"torch\", torch.__version__)' &&
  chroot '$root' /usr/bin/env -i PATH=/usr/bin HOME=/tmp LANG=C.UTF-8 QEMU_CPU=$QEMU_CPU OMP_NUM_THREADS=1 PYTHONPATH=/suite \
    python3 /suite/tests/notebooks/execute.py verify ml-100k --ignore '$emulation'"
