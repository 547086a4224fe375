#include "barkfast/fork.h"

#include <mutex>
#include <set>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace barkfast {

// Never destroyed: threads may outlive static objects.
struct ForkRegistry {
    std::mutex mutex;
    std::set<AfterFork*> all;

    static ForkRegistry& get() {
        static ForkRegistry* const registry = new ForkRegistry();
        return *registry;
    }

#if defined(__unix__) || defined(__APPLE__)
    // The mutex is held during the fork, so that the child's copy is consistent.
    ForkRegistry() { pthread_atfork(lock, unlock, repair_all); }
    static void lock() { get().mutex.lock(); }
    static void unlock() { get().mutex.unlock(); }
    static void repair_all() {
        for (AfterFork* each : get().all) each->repair_();
        unlock();
    }
#endif
};

AfterFork::AfterFork(std::function<void()> repair) : repair_(std::move(repair)) {
    ForkRegistry& registry = ForkRegistry::get();
    const std::lock_guard<std::mutex> lock(registry.mutex);
    registry.all.insert(this);
}

AfterFork::~AfterFork() {
    ForkRegistry& registry = ForkRegistry::get();
    const std::lock_guard<std::mutex> lock(registry.mutex);
    registry.all.erase(this);
}

}  // namespace barkfast
