//! What a dirty row means: the journal decides, see DESIGN.
