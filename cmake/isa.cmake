# birkhoff_add_isa_sources(TARGET FILE...): compiles each *.isa.cc once per instruction set (src/kernels/isa.h); for amx only those whose
# products use its tiles.
# -ffp-contract=off: fused multiply-adds are written where they are meant, so a source means the same at every level.
set(BIRKHOFF_ISA_FLAGS_scalar -mno-avx)
set(BIRKHOFF_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(BIRKHOFF_ISA_FLAGS_avx512 ${BIRKHOFF_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16
    -mavx512vnni -mprefer-vector-width=512)
set(BIRKHOFF_ISA_FLAGS_amx ${BIRKHOFF_ISA_FLAGS_avx512} -mamx-tile -mamx-bf16)

set(BIRKHOFF_TILE_KERNELS gemm attention_forward attention_backward sparse_attention sparse_backward indexer)

# Levels that this processor cannot run need not be watched by sanitizers, which take most of the time of compiling kernels.
set(BIRKHOFF_UNWATCHED "")
if(BIRKHOFF_SANITIZE)
  file(STRINGS /proc/cpuinfo cpu_flags REGEX "^flags" LIMIT_COUNT 1)
  if(NOT cpu_flags MATCHES "avx512_bf16")
    list(APPEND BIRKHOFF_UNWATCHED avx512)
  endif()
  if(NOT cpu_flags MATCHES "amx_bf16")
    list(APPEND BIRKHOFF_UNWATCHED amx)
  endif()
endif()

function(birkhoff_add_isa_sources target)
  list(JOIN BIRKHOFF_TILE_KERNELS "|" tile_kernels)
  foreach(isa scalar avx2 avx512 amx)
    set(sources ${ARGN})
    if(isa STREQUAL amx)
      list(FILTER sources INCLUDE REGEX "/(${tile_kernels})\\.isa\\.cc$")
    endif()
    add_library(${target}_${isa} OBJECT ${sources})
    target_compile_definitions(${target}_${isa} PRIVATE BK_ISA=${isa} BK_ISA_${isa}=1)
    # GCC 12 takes the undefined pass-through operand of its own AVX-512 intrinsics for an uninitialised variable.
    target_compile_options(${target}_${isa} PRIVATE ${BIRKHOFF_ISA_FLAGS_${isa}} -Wno-maybe-uninitialized -Wno-uninitialized)
    target_include_directories(${target}_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(${target}_${isa} PRIVATE birkhoff_options)
    if(isa IN_LIST BIRKHOFF_UNWATCHED)
      set_target_properties(${target}_${isa} PROPERTIES BIRKHOFF_UNWATCHED ON)
    endif()
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${isa}>)
  endforeach()
endfunction()
