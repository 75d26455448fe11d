//! Kong's Lua plugins on LuaJIT.
