package Monitoring;

# manifests/monitoring as the tests see it: the queries of rules and dashboard, and the metrics that docs/METRICS.md knows.

use strict;
use warnings;
use EG::Test;

our $DIR = eg_root() . '/manifests/monitoring';

# name => { type, labels => { name => 1 } }: what the programs have, and what recording.yml makes of it.
sub known
{
	my %known = (up => { type => 'gauge', labels => {} });
	for (split /\n/, slurp(eg_root() . '/docs/METRICS.md')) {
		my ($name, $type, $labels) = /^\| `(\w+)` \| (\w+) \|([^|]*)\|/ or next;
		$known{$name} = { type => $type, labels => { map { ($_ => 1) } $labels =~ /`(\w+)`/g } };
		next if $type ne 'histogram';
		$known{ $name . $_ } = { type => 'counter', labels => { %{ $known{$name}{labels} }, $_ eq '_bucket' ? (le => 1) : () } } for qw(_bucket _sum _count);
	}
	for my $rule (grep { $_->{record} } rules()) {
		my %labels = map { ($_ => 1) } map { /(\w+)/g } $rule->{expr} =~ /\bby \(([^)]*)\)/g;
		$known{ $rule->{record} } = { type => 'gauge', labels => \%labels };
	}
	return \%known;
}

# { record or alert, expr, for, severity, summary, runbook } of both files. They keep to the YAML that is read here.
sub rules
{
	my @rules;
	for my $file (qw(recording alerts)) {
		my $block;
		for (split /\n/, slurp("$DIR/$file.yml")) {
			if (/^ {6}- (record|alert): (\S+)$/) { push @rules, { $1 => $2 }; undef $block }
			elsif (/^ {8}expr: \|$/) { $block = '' }
			elsif (/^ {8}expr: (.+)$/) { $rules[-1]{expr} = $1 }
			elsif (defined $block && /^ {10}(.+)$/) { $block .= "$1 "; $rules[-1]{expr} = $block }
			else {
				undef $block;
				$rules[-1]{severity} = $1 if /severity: (\w+)/;
				$rules[-1]{summary} = $1 if /summary: "(.+)"$/;
				$rules[-1]{runbook} = $1 if /runbook: (\S+)/;
			}
		}
	}
	return @rules;
}

sub dashboard { return json_decode(slurp("$DIR/dashboard.json")) }

# The queries of the dashboard as Prometheus gets them, [ panel, query ].
sub queries
{
	my %variable = ('$__rate_interval' => '1m', '$__range' => '3h', '$instance' => '.*');
	my @queries;
	for my $panel (@{ dashboard()->{panels} }) {
		for my $target (@{ $panel->{targets} // [] }) {
			my $query = $target->{expr};
			$query =~ s/(\$\w+)/$variable{$1} \/\/ $1/ge;
			push @queries, [ $panel->{title}, $query ];
		}
	}
	return @queries;
}

# The metrics that a query names: [ name, its label matchers ].
sub selectors
{
	my ($query) = @_;
	my @found;
	my $bare = $query =~ s/"(?:[^"\\]|\\.)*"/""/gr;
	$bare =~ s/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)//g;
	$bare =~ s/\[[^\]]*\]//g;
	$bare =~ s/\boffset\s+\w+//g;
	while ($bare =~ /\b([a-zA-Z_][\w:]*)\s*(\(|\{[^}]*\})?/g) {
		my ($name, $behind) = ($1, $2 // '');
		next if $behind eq '(' || $name =~ /^(?:and|or|unless|bool|Inf|NaN|by)$/;
		push @found, [ $name, [ $behind =~ /(\w+)\s*[=!]/g ] ];
	}
	return @found;
}

1;
