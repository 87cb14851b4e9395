//! Who counts where, before and after a reload.
