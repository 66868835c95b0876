// Owns the precompiled headers that the layers share (CMakeLists.txt).
