// The kernel tables of the levels that this build contains.
#pragma once

#include "barkfast/kernels.h"

namespace barkfast {

namespace scalar {
const Kernels& table();
}
namespace avx2 {
const Kernels& table();
}
namespace avx2_vnni {
const Kernels& table();
}
namespace avx512 {
const Kernels& table();
}
namespace avx512_vnni {
const Kernels& table();
}
namespace avx512_bf16 {
const Kernels& table();
}
namespace amx {
const Kernels& table();
}

}  // namespace barkfast
