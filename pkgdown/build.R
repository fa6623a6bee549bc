# The pages of the R package, in docs/: build.R [quick]
#
# "quick" leaves out the results of the examples, for looking at the pages while writing.
quick <- identical(commandArgs(TRUE), "quick")

# Pages are drawn by the package as it is installed, and no server is asked for anything: not by
# pkgdown, and not by downlit, which looks up at CRAN where the pages of a package are that a
# vignette loads and that is not installed, as keras3.
options(pkgdown.internet = FALSE)
utils::assignInNamespace(
  "CRAN_urls", function() data.frame(Package = character(), URL = character()), "downlit"
)
library(adadelta)
pkgdown::clean_site()
pkgdown::build_site(
  examples = !quick, run_dont_run = FALSE, devel = FALSE, install = FALSE, preview = FALSE,
  new_process = FALSE
)
# Scripts of pkgdown's own templates, which pkgdown/templates/head.html does without.
unlink(file.path("docs", "pkgdown.js"))
