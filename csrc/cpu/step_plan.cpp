#include "step_plan.h"

#include <algorithm>
#include <tuple>

namespace barkfast {

namespace {

auto key(const DrawRow& row) { return std::make_tuple(row.slice.first, row.slice.end, row.stop); }

HeadGroup start_group(const DrawRow& row, int64_t index) {
    HeadGroup group{index, 0, row.slice.first / kPanelRows, panel_count(row.slice.end), -1};
    if (row.stop < 0) return group;
    const int64_t panel = row.stop / kPanelRows;
    // Usually the stop token follows the slice.
    if (panel == group.last_panel)
        ++group.last_panel;
    else if (panel < group.first_panel || panel > group.last_panel)
        group.stop_panel = panel;
    return group;
}

}  // namespace

StepPlan::StepPlan(int64_t n_slots) {
    feeds.reserve(size_t(n_slots));
    draws.reserve(size_t(n_slots));
    groups.reserve(size_t(n_slots));
}

void StepPlan::make(const std::vector<int64_t>& slots, const std::vector<Sequence>& sequences) {
    feeds.clear();
    draws.clear();
    groups.clear();
    for (const int64_t slot : slots) {
        const Sequence& s = sequences[size_t(slot)];
        if (s.status != Status::running) continue;
        const bool feeds_one = s.n_fed < s.fed.size();
        if (feeds_one) feeds.push_back({slot, s.fed[s.n_fed], s.length});
        if (s.n_fed + feeds_one < s.fed.size()) continue;
        const Request& r = s.request;
        draws.push_back({slot, feeds_one ? int64_t(feeds.size()) - 1 : -1, r.slices[s.tokens.size() % r.slices.size()],
                         r.has_stop ? r.stop : -1});
    }
    std::sort(draws.begin(), draws.end(), [](const DrawRow& a, const DrawRow& b) { return key(a) < key(b); });
    for (size_t i = 0; i < draws.size(); ++i) {
        if (i == 0 || key(draws[i]) != key(draws[i - 1])) groups.push_back(start_group(draws[i], int64_t(i)));
        ++groups.back().n_rows;
    }
}

}  // namespace barkfast
