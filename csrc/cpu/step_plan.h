// What one step does: which tokens are read, and which rows of which heads' panels are drawn from.
#pragma once

#include <cstdint>
#include <vector>

#include "barkfast/decoder.h"

namespace barkfast {

// One slot's sequence.
struct Sequence {
    Status status = Status::idle;
    Request request;
    // Positions in the cache.
    int64_t length = 0;
    // Tokens to be read, and how many of them have been.
    std::vector<int32_t> fed;
    size_t n_fed = 0;
    std::vector<int32_t> tokens;
    // Whether `hidden` is what the prompt left, to be drawn from.
    bool has_hidden = false;
};

// A token to be read.
struct Feed {
    int64_t slot;
    int32_t token;
    int64_t position;
};

// A token to be drawn.
struct DrawRow {
    int64_t slot;
    // Row of the token read in the same step; -1: draw from what the prompt left.
    int64_t feed;
    Slice slice;
    // -1: none.
    int64_t stop;
};

// Rows that are drawn from the same tokens, and the head's panels that hold these.
struct HeadGroup {
    int64_t first_row;
    int64_t n_rows;
    int64_t first_panel;
    int64_t last_panel;
    // Of the stop token, if that is outside; else -1.
    int64_t stop_panel;
};

struct StepPlan {
    std::vector<Feed> feeds;
    std::vector<DrawRow> draws;
    std::vector<HeadGroup> groups;

    // Room for all slots, so that nothing is allocated later.
    explicit StepPlan(int64_t n_slots);

    // Plan a step of the running ones of `slots`.
    void make(const std::vector<int64_t>& slots, const std::vector<Sequence>& sequences);
};

}  // namespace barkfast
