# Everything a contributor runs. Missing environments are created by environments/setup.sh, outside
# this folder.

SETUP   := environments/setup.sh
STOCK   := environments/use.sh stock
INSTALL := environments/install.sh
RUN     := $(STOCK) python tests/run.py
NEEDS   := tests/tools/needs.sh

# The Python core is used from this folder, without installing it.
CORE := PYTHONPATH="$(CURDIR)/python"
RUFF := $(STOCK) ruff
CODE := python tests bench vignettes pkgdown

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint document coverage site vectors hosts choosing bench gpu compare paper optim traps check dist install clean

help: ## list these targets
	@awk -F ': *|## ' '/^[a-z-]+:.*##/ { printf "make %-9s %s\n", $$1, $$NF }' Makefile

demo: ## train on ggplot2's diamonds and draw what happened
	@$(SETUP) stock demo
	@$(INSTALL) stock
	@$(RUN) demo

test: ## the tests on the stock environment and its default backend
	@$(SETUP) stock test
	@$(INSTALL) stock
	@$(RUN) r+check python:jax kernels devices-fast rpy2

test-all: ## the tests on every backend and on both environments
	@$(SETUP) stock trainers
	@$(SETUP) latest test
	@$(INSTALL) stock
	@$(INSTALL) latest
	@$(RUN) r+check python:jax python:tensorflow python:torch kernels frameworks devices \
	  rpy2+latest/r latest/python:jax latest/kernels latest/frameworks latest/devices-fast latest/rpy2

lint: ## ruff, mypy, lintr and spelling
	@$(SETUP) stock test
	$(RUFF) check --config python/pyproject.toml $(CODE)
	$(RUFF) format --check --config python/pyproject.toml $(CODE)
	$(STOCK) mypy --config-file python/pyproject.toml python/adadelta
	$(STOCK) Rscript tests/tools/lint.R
	$(STOCK) Rscript tests/tools/spelling.R

document: ## write NAMESPACE and man/ from the comments in R/ (needs R package roxygen2)
	@$(SETUP) stock test
	$(STOCK) Rscript -e 'roxygen2::roxygenise()'

coverage: ## how much of R/ and python/ the tests run (takes long)
	@$(SETUP) stock site
	@$(INSTALL) stock
	$(STOCK) Rscript tests/tools/coverage_r.R
	$(STOCK) python tests/tools/coverage_python.py

site: ## the documentation as web pages, in docs/
	@$(NEEDS) site
	@$(SETUP) stock site
	@$(INSTALL) stock
	$(STOCK) Rscript pkgdown/build.R
	$(CORE) $(STOCK) python pkgdown/finish.py docs
	$(STOCK) python pkgdown/check_links.py docs
	$(STOCK) python pkgdown/check_pages.py docs

vectors: ## write tests/vectors, from 50-digit arithmetic
	@$(SETUP) stock test
	$(CORE) $(STOCK) python tests/vectors/generate.py

hosts: ## write vignettes/hosts.json, from the other frameworks' own classes
	@$(SETUP) stock all
	$(STOCK) python vignettes/hosts.py

choosing: ## make the missing runs of the comparison in vignettes/choosing.json
	@$(NEEDS) choosing
	@$(SETUP) stock test
	$(CORE) $(STOCK) python vignettes/choosing.py

bench: ## the measurements in bench/results.md
	@$(NEEDS) bench
	@$(SETUP) stock all
	@$(SETUP) latest test
	@$(INSTALL) stock
	$(CORE) $(STOCK) python bench/run.py

gpu: ## the checks that need an NVIDIA GPU, in one report
	@$(NEEDS) gpu
	@python3 bench/gpu.py

compare: ## the measurements in turns with those of another checkout, WITH=path
	@test "$(WITH)" || { echo "Name the other checkout: make compare WITH=path" >&2; exit 2; }
	@$(SETUP) stock all
	@$(SETUP) latest test
	@$(INSTALL) stock
	$(STOCK) python bench/compare.py "$(WITH)" $(ARGUMENTS)

paper: ## make the missing runs of the paper's experiments in inst/paper (half an hour for all)
	@$(NEEDS) paper
	@$(SETUP) stock demo
	@$(INSTALL) stock
	$(STOCK) Rscript bench/paper.R

optim: ## write vignettes/minimizing.csv, the methods of optim() on the problems of tests/problems
	@$(SETUP) stock test
	@$(INSTALL) stock
	$(STOCK) Rscript bench/optim.R

traps: ## where Keras' own Adadelta goes wrong on this machine and ours does not
	@$(SETUP) stock all
	@for backend in jax tensorflow torch; do \
	  KERAS_BACKEND=$$backend $(CORE) $(STOCK) python tests/traps/report.py || exit 1; done

check: ## R CMD check --as-cran
	@$(SETUP) stock test
	@$(RUN) check

dist: ## build and check what goes to PyPI and CRAN, in dist/
	@$(SETUP) stock test
	@$(STOCK) tests/tools/dist.sh

install: ## install the R package into the stock environment's own library
	@$(SETUP) stock demo
	@$(INSTALL) stock

clean: ## remove caches, pictures and the site
	rm -rf demo-output dist docs .mypy_cache .pytest_cache .ruff_cache .hypothesis *.Rcheck *.tar.gz
	find python tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
