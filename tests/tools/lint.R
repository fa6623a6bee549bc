# Fails on any lint in the package's R code. The package is loaded first; otherwise
# every internal helper would be reported as unknown.
pkgload::load_all(quiet = TRUE)
lints <- lintr::lint_package()
print(lints)
quit(status = as.integer(length(lints) > 0))
