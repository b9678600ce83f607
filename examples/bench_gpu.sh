#!/usr/bin/env bash
# The first minutes of the triton engine on a GPU: is it right there, and how fast.
#
#   examples/bench_gpu.sh [FOLDER]      LIMIT=seconds, 290 if not given; PYTHON=python; SKIP_TESTS=1
#
# First the tests of the kernels, on the GPU. Then the goals of docs/benchmarks_gpu.md, twice, each as a JSON file in
# FOLDER, the most important ones first, until the time is over. Run it again with the same folder for the rest: what is
# there is not measured again. Then a summary. Needs a CUDA build of torch and: pip install -e '.[cuda,dev]'
set -uo pipefail  # without -e: a rival that fails must not end the run
cd "$(dirname "$0")/.."
python=${PYTHON:-python} limit=${LIMIT:-290} folder=${1:-gpu-results}
mkdir -p "$folder"

left() { echo $((limit - SECONDS)); }

if ! "$python" -c 'import torch, triton, rnnprune; assert torch.cuda.is_available(), "torch sees no CUDA device"'; then
    echo "nothing can be measured here; install a CUDA build of torch and: pip install -e '.[cuda,dev]'" >&2
    exit 2
fi
{ nvidia-smi; "$python" -m pip list; git rev-parse HEAD; } > "$folder/machine.txt" 2>&1

if [ -z "${SKIP_TESTS:-}" ] && [ ! -s "$folder/tests.passed" ]; then
    # The compiler takes about a second for each of some sixty variants, hence a limit.
    timeout 120 "$python" -m pytest -q -p no:cacheprovider --maxfail=20 tests/kernels/test_triton_layer.py \
        tests/kernels/test_triton_product.py > "$folder/tests.txt" 2>&1 && date > "$folder/tests.passed"
    tail -n 25 "$folder/tests.txt"
fi

# Dense in its best forms is replayed from a graph; the eager forms are left for a longer run without --engines.
graphs=torch-dense-fp32:graph,torch-dense-fp32:tf32:graph,torch-dense-fp16:graph,torch-dense-fp16:pad8:graph
graphs=$graphs,torch-dense-fp32:addmm:graph,torch-dense-fp16:addmm:graph,torch-csr:graph

measure() {  # NAME FLAGS...: into FOLDER/NAME.json
    local file="$folder/$1.json"
    shift
    if [ -s "$file" ] || [ "$(left)" -lt 15 ]; then return; fi
    echo "$(left) s left: $file"
    if timeout "$(left)" "$python" -m rnnprune bench --device cuda "$@" --json > "$file.part" 2> "${file%.json}.log"; then
        mv "$file.part" "$file"
    else
        echo "failed: $file"
        tail -n 5 "${file%.json}.log"
    fi
}

layers=$graphs,triton:sell,triton:sell:fp16
blocks=$graphs,triton:16x1,triton:16x1:fp16
products=$graphs,triton:sell:graph,triton:sell:fp16:graph
for run in 1 2; do
    measure "gru1760.$run" --shapes gru:1760x1760 --rounds 10 --engines "$layers"
    measure "lstm3072.$run" --shapes lstm:3072x3072 --rounds 10 --engines "$layers"
    measure "gru2560.$run" --shapes gru:2560x2560 --rounds 10 --engines "$layers"
    measure "gru1760-blocks.$run" --shapes gru:1760x1760 --block 16x1 --rounds 10 --engines "$blocks"
    measure "gru1760-batch8.$run" --shapes gru:1760x1760 --batch 8 --rounds 10 --engines "$layers"
    measure "matrices.$run" --shapes paper --rounds 10 --engines "$products"
    measure "lstm3072-blocks.$run" --shapes lstm:3072x3072 --block 16x1 --rounds 10 --engines "$blocks"
    measure "lstm3072-batch8.$run" --shapes lstm:3072x3072 --batch 8 --rounds 10 --engines "$layers"
    measure "gru2560-blocks.$run" --shapes gru:2560x2560 --block 16x1 --rounds 10 --engines "$blocks"
    measure "gru2560-batch8.$run" --shapes gru:2560x2560 --batch 8 --rounds 10 --engines "$layers"
    measure "lstm1024-losing.$run" --shapes lstm:1024x1024 --batch 8,32 --rounds 10 --engines "$layers"
done
"$python" examples/bench_gpu_summary.py "$folder"
