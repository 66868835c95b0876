# Texts that are compiled in.

# Compiles presets/*.json into one generated source: birkhoff_embed_presets(OUT_VARIABLE).
function(birkhoff_embed_presets out)
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/presets/*.json)
  set(text "// Generated from presets/*.json.\n#include \"model/presets.h\"\nnamespace birkhoff::model {\nconst std::vector<Preset>& presets() {\n  static const std::vector<Preset> list = {\n")
  foreach(file ${files})
    get_filename_component(name ${file} NAME_WLE)
    file(READ ${file} body)
    string(APPEND text "    {\"${name}\", R\"json(${body})json\"},\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  string(APPEND text "  };\n  return list;\n}\n}  // namespace birkhoff::model\n")
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/presets.cc CONTENT "${text}" @ONLY)
  set(${out} ${CMAKE_BINARY_DIR}/generated/presets.cc PARENT_SCOPE)
endfunction()

# Compiles the style and script of the report into one generated source: birkhoff_embed_page(OUT_VARIABLE). Raw literals end at 64 KB on some
# compilers; the files are far below.
function(birkhoff_embed_page out)
  set(text "// Generated from src/report/page.css, page.js and study.js.\n#include \"report/page.h\"\nnamespace birkhoff::report {\n")
  foreach(part page_style:page.css page_script:page.js study_script:study.js)
    string(REPLACE ":" ";" part ${part})
    list(GET part 0 name)
    list(GET part 1 file)
    set(file ${PROJECT_SOURCE_DIR}/src/report/${file})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(READ ${file} body)
    string(APPEND text "std::string_view ${name}() {\n  return R\"page(${body})page\";\n}\n")
  endforeach()
  string(APPEND text "}  // namespace birkhoff::report\n")
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/page.cc CONTENT "${text}" @ONLY)
  set(${out} ${CMAKE_BINARY_DIR}/generated/page.cc PARENT_SCOPE)
endfunction()
