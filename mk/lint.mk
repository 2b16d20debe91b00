# Checks that need no running daemon.

SOURCES := $(wildcard common/*.[ch] tests/*/*.[ch] $(foreach d,$(DIRS),$(d)/*.[ch] $(d)/*/*.[ch]))

.PHONY: lint format docs
format: ## rewrite the sources with clang-format
	$(Q)clang-format -i $(SOURCES)

docs: all $(BIN)/interfaces-doc ## regenerate docs/OPTIONS.md and docs/INTERFACES.md
	$(Q)mk/docs $(BIN) docs

lint: all ## format, include rule, banned calls, docs in step with the code
	$(Q)mk/lint $(BIN)
