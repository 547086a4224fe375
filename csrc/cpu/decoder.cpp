#include "barkfast/decoder.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <string>

#include "barkfast/fair_mutex.h"
#include "barkfast/trunk.h"
#include "decode_step.h"

namespace barkfast {
namespace {

using Clock = std::chrono::steady_clock;

// The pool is held for at most this time plus one step.
constexpr double kChunkSeconds = 0.05;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

struct Decoder::Work {
    Work(const Network& network, const KvCache& cache, const Kernels& kernels, Pool& pool)
        : network(network),
          cache(cache),
          pool(pool),
          trunk(network, kernels, pool),
          step(network, cache, kernels, pool),
          hidden(cache.n_slots * network.n_embd),
          sequences(size_t(cache.n_slots)),
          plan(cache.n_slots) {
        for (Sequence& s : sequences) {
            s.fed.reserve(size_t(network.block_size));
            s.tokens.reserve(size_t(network.block_size));
        }
    }

    Sequence& at(int64_t slot) {
        if (slot < 0 || slot >= int64_t(sequences.size()))
            throw std::invalid_argument("slot is " + std::to_string(slot) + "; expected 0 to " +
                                        std::to_string(sequences.size() - 1));
        return sequences[size_t(slot)];
    }

    // Lock the decoder for one call.
    std::unique_lock<FairMutex> lock() {
        std::unique_lock<FairMutex> lock(busy, std::try_to_lock);
        if (!lock) throw std::runtime_error("the decoder is at work in another thread; wait until it is done");
        if (busy.abandoned())
            throw std::runtime_error(
                "the decoder was at work in another thread when this process was forked; build a new one");
        return lock;
    }

    void check(const Request& request, const Sequence& s) const;
    void check_slots(const std::vector<int64_t>& slots);
    bool settle();
    int64_t run_steps(const std::vector<int64_t>& slots, int64_t max_steps, double seconds);
    bool any_ended(const std::vector<int64_t>& slots);

    const Network& network;
    const KvCache cache;
    Pool& pool;
    Trunk trunk;
    DecodeStep step;
    // The last hidden state of each slot's prompt, after the final norm.
    Buffer<float> hidden;
    std::vector<Sequence> sequences;
    StepPlan plan;
    FairMutex busy;
};

void Decoder::Work::check(const Request& r, const Sequence& s) const {
    const int64_t vocabulary = std::min(network.heads[0].rows, network.tokens[0].rows);
    const auto range = [](int64_t end) { return "; expected 0 to " + std::to_string(end - 1); };
    if (r.fed.empty() && !s.has_hidden)
        throw std::invalid_argument("the slot has no prompt, and nothing is fed to it; expected one of the two");
    if (r.steps < 1 || s.length + int64_t(r.fed.size()) + r.steps - 1 > network.block_size)
        throw std::invalid_argument(std::to_string(s.length) + " positions, " + std::to_string(r.fed.size()) +
                                    " tokens fed and " + std::to_string(r.steps) +
                                    " steps; expected at least one step, and at most " +
                                    std::to_string(network.block_size) + " positions in all");
    for (const int32_t token : r.fed)
        if (token < 0 || token >= network.tokens[0].rows)
            throw std::invalid_argument("token " + std::to_string(token) + " is fed" + range(network.tokens[0].rows));
    if (r.slices.empty()) throw std::invalid_argument("a sequence without slices; expected at least one");
    for (const Slice& slice : r.slices)
        if (slice.first < 0 || slice.end <= slice.first || slice.end > vocabulary)
            throw std::invalid_argument("slice [" + std::to_string(slice.first) + ", " + std::to_string(slice.end) +
                                        ") of the vocabulary; expected at least one token" + range(vocabulary));
    if (r.has_stop && (r.stop < 0 || r.stop >= network.heads[0].rows))
        throw std::invalid_argument("the stop token is " + std::to_string(r.stop) + range(network.heads[0].rows));
}

// Update the sequences after a step. Returns whether a sequence has ended.
bool Decoder::Work::settle() {
    bool ended = false;
    for (const Feed& feed : plan.feeds) {
        Sequence& s = sequences[size_t(feed.slot)];
        ++s.n_fed;
        ++s.length;
        s.has_hidden = false;
    }
    for (size_t r = 0; r < plan.draws.size(); ++r) {
        const DrawRow& row = plan.draws[r];
        const Drawn& drawn = step.drawn()[r];
        Sequence& s = sequences[size_t(row.slot)];
        const int32_t token = row.slice.first + drawn.index;
        if (!drawn.finite) {
            s.status = Status::failed;
        } else if (row.stop >= 0 && (token == row.slice.end || drawn.last_p >= s.request.min_p)) {
            s.status = Status::stopped;
        } else {
            s.tokens.push_back(token);
            s.fed.assign(1, token);
            s.n_fed = 0;
            if (int64_t(s.tokens.size()) == s.request.steps) s.status = Status::finished;
        }
        ended |= s.status != Status::running;
    }
    return ended;
}

void Decoder::Work::check_slots(const std::vector<int64_t>& slots) {
    for (auto slot = slots.begin(); slot != slots.end(); ++slot) {
        at(*slot);
        if (std::find(slots.begin(), slot, *slot) != slot)
            throw std::invalid_argument("slot " + std::to_string(*slot) + " is listed twice; expected once");
    }
}

// Run steps in one session of the pool, see Decoder::advance.
int64_t Decoder::Work::run_steps(const std::vector<int64_t>& slots, int64_t max_steps, double seconds) {
    plan.make(slots, sequences);
    if (max_steps < 1 || (plan.feeds.empty() && plan.draws.empty())) return 0;
    int64_t steps = 0;
    Pool::Session session(pool);
    const Clock::time_point start = Clock::now();
    for (;;) {
        step.run(session, plan, sequences, hidden.data());
        ++steps;
        if (settle() || steps >= max_steps || seconds_since(start) >= seconds) return steps;
        plan.make(slots, sequences);
    }
}

bool Decoder::Work::any_ended(const std::vector<int64_t>& slots) {
    return std::any_of(slots.begin(), slots.end(), [this](int64_t slot) { return at(slot).status != Status::running; });
}

Decoder::Decoder(const Network& network, const KvCache& cache, const Kernels& kernels, Pool& pool) {
    if (network.tokens.size() != 1 || network.heads.size() != 1)
        throw std::invalid_argument("a network with " + std::to_string(network.tokens.size()) + " token tables and " +
                                    std::to_string(network.heads.size()) + " heads; a decoder takes one of each");
    if (cache.format != network.cache_format() || cache.n_layer != network.n_layer || cache.n_head != network.n_head ||
        cache.head_dim != network.head_dim() || cache.capacity != cache_capacity(network.block_size))
        throw std::invalid_argument("the cache does not have the network's format, layers, heads and positions");
    if (cache.n_slots < 1 || !cache.key_data || !cache.value_data)
        throw std::invalid_argument("a cache of " + std::to_string(cache.n_slots) +
                                    " slots; expected at least one, and memory for it");
    work_ = std::make_unique<Work>(network, cache, kernels, pool);
}

Decoder::~Decoder() = default;

void Decoder::prefill(int64_t slot, const int32_t* tokens, int64_t n_tokens, int64_t n_merged) {
    Work& work = *work_;
    const auto held = work.lock();
    Sequence& s = work.at(slot);
    s.status = Status::idle;
    s.has_hidden = false;
    s.length = 0;
    work.trunk.prefill(tokens, n_tokens, n_merged, work.cache, slot, work.hidden.data() + slot * work.network.n_embd);
    s.length = n_tokens - n_merged;
    s.has_hidden = true;
}

void Decoder::start(int64_t slot, const Request& request) {
    const auto held = work_->lock();
    Sequence& s = work_->at(slot);
    if (s.status == Status::running)
        throw std::invalid_argument("slot " + std::to_string(slot) + " is running; pause it first");
    work_->check(request, s);
    s.request = request;
    s.fed.assign(request.fed.begin(), request.fed.end());
    s.n_fed = 0;
    s.tokens.clear();
    s.status = Status::running;
}

void Decoder::pause(int64_t slot) {
    const auto held = work_->lock();
    work_->at(slot).status = Status::idle;
}

int64_t Decoder::advance(const std::vector<int64_t>& slots, int64_t max_steps, double seconds, const Between& between) {
    Work& work = *work_;
    const auto held = work.lock();
    work.check_slots(slots);
    const Clock::time_point start = Clock::now();
    double left = seconds;
    for (int64_t steps = 0;;) {
        const int64_t n = work.run_steps(slots, max_steps - steps, std::min(left, kChunkSeconds));
        steps += n;
        left = seconds - seconds_since(start);
        if (n == 0 || steps >= max_steps || left <= 0 || work.any_ended(slots)) return steps;
        between();
    }
}

std::pair<Status, int64_t> Decoder::state(int64_t slot) const {
    const auto held = work_->lock();
    const Sequence& s = work_->at(slot);
    return {s.status, int64_t(s.tokens.size())};
}

std::vector<int32_t> Decoder::tokens(int64_t slot) const {
    const auto held = work_->lock();
    return work_->at(slot).tokens;
}

std::vector<float> Decoder::logits(int64_t slot) const {
    const auto held = work_->lock();
    const std::vector<DrawRow>& draws = work_->plan.draws;
    for (size_t r = 0; r < draws.size(); ++r) {
        if (draws[r].slot != slot) continue;
        const float* logits = work_->step.logits(int64_t(r));
        return {logits + draws[r].slice.first, logits + draws[r].slice.end + (draws[r].stop >= 0)};
    }
    throw std::invalid_argument("slot " + std::to_string(slot) + " drew nothing in the last step");
}

int64_t Decoder::length(int64_t slot) const {
    const auto held = work_->lock();
    return work_->at(slot).length;
}

}  // namespace barkfast
