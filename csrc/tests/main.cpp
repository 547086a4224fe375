// Runs all native tests, or those whose names start with one of the arguments.
#include <cstdio>
#include <cstring>
#include <exception>

#include "check.h"

namespace tests {
namespace {

struct Test {
    const char* name;
    void (*run)();
};

std::vector<Test>& all() {
    static std::vector<Test> tests;
    return tests;
}

int64_t checks = 0, failures = 0;

bool wanted(const char* name, int argc, char** argv) {
    for (int i = 1; i < argc; ++i)
        if (std::strncmp(name, argv[i], std::strlen(argv[i])) == 0) return true;
    return argc == 1;
}

}  // namespace

std::string note;

Registered::Registered(const char* name, void (*run)()) { all().push_back({name, run}); }

void report(bool good, const char* what, const char* file, int line) {
    ++checks;
    if (good) return;
    if (++failures <= 5) std::printf("%s:%d: %s [%s]\n", file, line, what, note.c_str());
}

}  // namespace tests

int main(int argc, char** argv) {
    using namespace tests;
    int passed = 0, failed = 0;
    for (const Test& test : all()) {
        if (!wanted(test.name, argc, argv)) continue;
        checks = failures = 0;
        note.clear();
        try {
            test.run();
        } catch (const std::exception& error) {
            report(false, error.what(), __FILE__, __LINE__);
        }
        std::printf("%-24s %s: %lld of %lld checks\n", test.name, failures ? "FAILED" : "ok",
                    static_cast<long long>(checks - failures), static_cast<long long>(checks));
        std::fflush(stdout);
        ++(failures ? failed : passed);
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed ? 1 : 0;
}
