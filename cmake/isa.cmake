# birkhoff_add_isa_sources(TARGET FILE...): compiles each *.isa.cc once per instruction set (src/kernels/isa.h); for amx only those whose
# products use its tiles.
# -ffp-contract=off: fused multiply-adds are written where they are meant, so a source means the same at every level.
set(BIRKHOFF_ISA_FLAGS_scalar -mno-avx)
set(BIRKHOFF_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(BIRKHOFF_ISA_FLAGS_avx512 ${BIRKHOFF_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16
    -mavx512vnni -mprefer-vector-width=512)
set(BIRKHOFF_ISA_FLAGS_amx ${BIRKHOFF_ISA_FLAGS_avx512} -mamx-tile -mamx-bf16 -mamx-int8)

set(BIRKHOFF_TILE_KERNELS gemm quant attention_forward attention_backward latent_attention sparse_attention sparse_backward indexer)

# The widest level this processor can run.
file(STRINGS /proc/cpuinfo cpu_flags REGEX "^flags" LIMIT_COUNT 1)
set(BIRKHOFF_NATIVE_ISA scalar)
if(cpu_flags MATCHES "avx2" AND cpu_flags MATCHES "fma" AND cpu_flags MATCHES "f16c")
  set(BIRKHOFF_NATIVE_ISA avx2)
  if(cpu_flags MATCHES "avx512_bf16" AND cpu_flags MATCHES "avx512_vnni")
    set(BIRKHOFF_NATIVE_ISA avx512)
    if(cpu_flags MATCHES "amx_bf16")
      set(BIRKHOFF_NATIVE_ISA amx)
    endif()
  endif()
endif()

# birkhoff_levels_up_to(VARIABLE WIDEST): the levels from scalar to WIDEST.
function(birkhoff_levels_up_to variable widest)
  set(levels scalar avx2 avx512 amx)
  list(FIND levels "${widest}" last)
  if(last EQUAL -1)
    message(FATAL_ERROR "BIRKHOFF_WIDEST_ISA: unknown level \"${widest}\", one of scalar, avx2, avx512, amx, native")
  endif()
  math(EXPR count "${last} + 1")
  list(SUBLIST levels 0 ${count} levels)
  set(${variable} ${levels} PARENT_SCOPE)
endfunction()

set(widest ${BIRKHOFF_WIDEST_ISA})
if(widest STREQUAL native)
  set(widest ${BIRKHOFF_NATIVE_ISA})
endif()
birkhoff_levels_up_to(BIRKHOFF_LEVELS ${widest})
# A build for this machine alone leaves out what stands between its level and the one that runs anywhere (amx needs avx512).
if(BIRKHOFF_WIDEST_ISA STREQUAL native AND widest MATCHES "avx512|amx")
  list(REMOVE_ITEM BIRKHOFF_LEVELS avx2)
endif()
foreach(isa scalar avx2 avx512 amx)
  if(isa IN_LIST BIRKHOFF_LEVELS)
    set(compiled_${isa} 1)
  else()
    set(compiled_${isa} 0)
  endif()
endforeach()
set(BIRKHOFF_GENERATED ${PROJECT_BINARY_DIR}/generated)
configure_file(${CMAKE_CURRENT_LIST_DIR}/compiled_isa.h.in ${BIRKHOFF_GENERATED}/core/compiled_isa.h)

# Levels that this processor cannot run need not be watched by sanitizers, which take most of the time of compiling kernels.
birkhoff_levels_up_to(BIRKHOFF_WATCHED ${BIRKHOFF_NATIVE_ISA})

function(birkhoff_add_isa_sources target)
  list(JOIN BIRKHOFF_TILE_KERNELS "|" tile_kernels)
  foreach(isa ${BIRKHOFF_LEVELS})
    set(sources ${ARGN})
    if(isa STREQUAL amx)
      list(FILTER sources INCLUDE REGEX "/(${tile_kernels})\\.isa\\.cc$")
    endif()
    add_library(${target}_${isa} OBJECT ${sources})
    set_target_properties(${target}_${isa} PROPERTIES UNITY_BUILD OFF)  # helpers of kernels share names on purpose
    target_compile_definitions(${target}_${isa} PRIVATE BK_ISA=${isa} BK_ISA_${isa}=1)
    # GCC 12 takes the undefined pass-through operand of its own AVX-512 intrinsics for an uninitialised variable.
    target_compile_options(${target}_${isa} PRIVATE ${BIRKHOFF_ISA_FLAGS_${isa}} ${BIRKHOFF_CONVERSIONS}
      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>)
    target_include_directories(${target}_${isa} PRIVATE ${PROJECT_SOURCE_DIR}/src ${BIRKHOFF_GENERATED})
    target_link_libraries(${target}_${isa} PRIVATE birkhoff_options)
    if(NOT isa IN_LIST BIRKHOFF_WATCHED)
      set_target_properties(${target}_${isa} PROPERTIES BIRKHOFF_UNWATCHED ON)
    endif()
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${isa}>)
  endforeach()
endfunction()
