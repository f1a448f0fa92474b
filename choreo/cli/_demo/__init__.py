"""What `choreo demo` is made of: one idea a module, none of them knows a particular demo."""
