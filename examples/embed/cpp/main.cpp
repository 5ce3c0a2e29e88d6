// Classifies digits on several threads: one copy of the weights, a parallel-for of our own.
#include "../digits.h"
#include "net.h"

#include <atomic>
#include <cstdio>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace {

constexpr std::int64_t batch_size = 64, workers = 2;

struct alignas(NET_ALIGN) Line {
    unsigned char bytes[NET_ALIGN];
};

std::vector<Line> block(std::size_t bytes) { return std::vector<Line>((bytes + NET_ALIGN - 1) / NET_ALIGN); }

// The simplest pool there is. A real program would keep its threads.
void parallel_for(void *, std::int64_t pieces, void (*body)(void *, std::int64_t, std::int64_t), void *context) {
    std::atomic<std::int64_t> next{0};
    auto work = [&](std::int64_t worker) {
        for (std::int64_t piece; (piece = next++) < pieces;) body(context, piece, worker);
    };
    std::vector<std::thread> threads;
    for (std::int64_t worker = 1; worker < workers; worker++) threads.emplace_back(work, worker);
    work(0);
    for (auto &thread : threads) thread.join();
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 3) {
        std::fprintf(stderr, "usage: classify net.safetensors digits.bin\n");
        return 2;
    }
    std::size_t bytes = 0;
    std::unique_ptr<unsigned char, void (*)(void *)> file(read_file(arguments[1], &bytes), std::free);
    auto prepared = block(NET_PREPARED_BYTES), workspace = block(NET_WORKSPACE_BYTES(batch_size, workers));
    int code = net_prepare(file.get(), bytes, prepared.data(), NET_PREPARED_BYTES);
    const digits all = read_digits(arguments[2]);
    std::vector<float> scores(batch_size * 10);
    int correct = 0;
    for (std::int64_t first = 0; first < all.count && code == NET_OK; first += batch_size) {
        const std::int64_t batch = std::min<std::int64_t>(batch_size, all.count - first);
        code = net_run_parallel(prepared.data(), all.images + first * PIXELS, scores.data(), batch, workers,
                                workspace.data(), workspace.size() * sizeof(Line), parallel_for, nullptr);
        for (std::int64_t k = 0; k < batch && code == NET_OK; k++)
            correct += largest(&scores[10 * k]) == all.labels[first + k];
    }
    if (code != NET_OK) {
        std::fprintf(stderr, "%s\n", net_strerror(code));
        return 1;
    }
    std::printf("%d of %d digits are right\n", correct, static_cast<int>(all.count));
}
