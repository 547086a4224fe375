# Every kernel is compiled once per instruction-set level, each in a namespace of its own (see cpu/level.h).
#   write_levels(out)   writes a source file per level into the build folder; `out` gets their paths
set(LEVEL_TEMPLATE ${CMAKE_CURRENT_LIST_DIR}/cpu/level.cpp.in)
set(LEVEL_FOLDER ${CMAKE_CURRENT_BINARY_DIR}/levels)

# A level: its features for the compiler, its simd_*.h, and whether it has dot products of bytes, of bfloat16, and tiles.
function(write_level LEVEL FEATURES SIMD VNNI BF16 TILES NOTE)
  if(FEATURES)
    set(GUARD BARKFAST_X86)
    set(BEGIN "BEGIN_TARGET(\"${FEATURES}\")")
    set(END END_TARGET)
  else()
    set(GUARD 1)
    # The compiler vectorizes the loops over lanes. If the loops around them are unrolled, this takes half a minute.
    set(BEGIN "#undef UNROLL\n#define UNROLL")
    set(END "")
  endif()
  configure_file(${LEVEL_TEMPLATE} ${LEVEL_FOLDER}/level_${LEVEL}.cpp @ONLY)
endfunction()

function(write_levels out)
  set(AVX2 avx2,fma,f16c)
  set(AVX512 ${AVX2},avx512f,avx512bw)
  write_level(scalar "" scalar 0 0 0 "plain C++ for every processor, compiled for the build's baseline")
  write_level(avx2 ${AVX2} avx2 0 0 0 "x86 with AVX2 and FMA")
  write_level(avx2_vnni ${AVX2},avxvnni avx2 1 0 0 "x86 with AVX2 and its dot products of bytes")
  write_level(avx512 ${AVX512} avx512 0 0 0 "x86 with AVX-512")
  write_level(avx512_vnni ${AVX512},avx512vnni avx512 1 0 0 "x86 with AVX-512 and its dot products of bytes")
  write_level(avx512_bf16 ${AVX512},avx512vnni,avx512bf16 avx512 1 1 0
              "x86 with AVX-512 and its dot products of bytes and of bfloat16")
  # Without AVX-512's dot products of bfloat16: some CPUs with AMX hide them or support them in name only.
  write_level(amx ${AVX512},avx512vnni,amx-tile,amx-bf16 avx512 1 0 1
              "x86 with AMX: tiles for products of many rows, AVX-512 for the rest")
  set(names scalar avx2 avx2_vnni avx512 avx512_vnni avx512_bf16 amx)
  list(TRANSFORM names REPLACE "(.+)" "${LEVEL_FOLDER}/level_\\1.cpp" OUTPUT_VARIABLE files)
  set(${out} ${files} PARENT_SCOPE)
endfunction()
