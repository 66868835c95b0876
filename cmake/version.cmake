# birkhoff_version.h: version, commit (when this is a git checkout) and kind of build, for --version. Written anew when HEAD moves.
set(BIRKHOFF_COMMIT "")
find_program(GIT git)
if(GIT AND EXISTS ${PROJECT_SOURCE_DIR}/.git)
  function(birkhoff_git variable)
    execute_process(COMMAND ${GIT} ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE said OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(${variable} "${said}" PARENT_SCOPE)
  endfunction()
  birkhoff_git(BIRKHOFF_COMMIT rev-parse --short=12 HEAD)
  birkhoff_git(head_log rev-parse --git-path logs/HEAD)
  cmake_path(ABSOLUTE_PATH head_log BASE_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(EXISTS ${head_log})
    set_property(DIRECTORY ${PROJECT_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${head_log})
  endif()
endif()
set(version_header "#pragma once
#define BIRKHOFF_VERSION \"${PROJECT_VERSION}\"
#define BIRKHOFF_COMMIT \"${BIRKHOFF_COMMIT}\"
#define BIRKHOFF_BUILD_TYPE \"${CMAKE_BUILD_TYPE}\"
")
file(CONFIGURE OUTPUT ${BIRKHOFF_GENERATED}/birkhoff_version.h CONTENT "${version_header}" @ONLY)
set_source_files_properties(${PROJECT_SOURCE_DIR}/apps/version.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
