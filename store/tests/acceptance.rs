//! The least that must hold of a store, case by case, through the public API. Each test bears the
//! letter and number of its case; those of section J are in `acceptance_j`.

#[path = "acceptance/a_construction.rs"]
mod a_construction;
#[path = "acceptance/b_creating.rs"]
mod b_creating;
#[path = "acceptance/c_properties.rs"]
mod c_properties;
#[path = "acceptance/d_values.rs"]
mod d_values;
#[path = "acceptance/e_ordering.rs"]
mod e_ordering;
#[path = "acceptance/f_moving.rs"]
mod f_moving;
#[path = "acceptance/g_trash.rs"]
mod g_trash;
#[path = "acceptance/h_purge.rs"]
mod h_purge;
#[path = "acceptance/i_orphans_and_imports.rs"]
mod i_orphans_and_imports;
#[path = "acceptance/k_convergence.rs"]
mod k_convergence;
#[path = "acceptance/stores.rs"]
mod stores;
