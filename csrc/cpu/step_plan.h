// Plan of one decode step: the tokens to read, and the rows and panels of the head to draw from.
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
    // Tokens to read, and how many of them were read.
    std::vector<int32_t> fed;
    size_t n_fed = 0;
    std::vector<int32_t> tokens;
    // Whether the prompt's last hidden state is available to draw from.
    bool has_hidden = false;
};

// A token to read.
struct Feed {
    int64_t slot;
    int32_t token;
    int64_t position;
};

// A token to draw.
struct DrawRow {
    int64_t slot;
    // Row in `feeds` of the token read in the same step; -1: draw from the prompt's hidden state.
    int64_t feed;
    Slice slice;
    // The stop token; -1: none.
    int64_t stop;
};

// Rows that draw from the same tokens, and the panels of the head that hold these tokens.
struct HeadGroup {
    int64_t first_row;
    int64_t n_rows;
    int64_t first_panel;
    int64_t last_panel;
    // Panel of the stop token if it is outside those panels, else -1.
    int64_t stop_panel;
};

struct StepPlan {
    std::vector<Feed> feeds;
    std::vector<DrawRow> draws;
    std::vector<HeadGroup> groups;

    // Reserves memory for all slots, so that nothing is allocated later.
    explicit StepPlan(int64_t n_slots);

    // Plan a step of those of `slots` that are running.
    void make(const std::vector<int64_t>& slots, const std::vector<Sequence>& sequences);
};

}  // namespace barkfast
