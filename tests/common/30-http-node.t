#!/usr/bin/env perl

# Our HTTP parser beside Node's, on the requests of http_requests.txt: who takes what, and what both
# see in it. A disagreement that the file does not explain fails. And what we refuse, a daemon answers
# with a status and a sentence that a client can act on.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

my $tool = ($ENV{EG_TESTS} // eg_root() . '/build/tests') . '/common/http_node_tool';
plan(skip_all => "$tool is not built") if !-x $tool;

my %BYTE = (r => "\r", n => "\n", t => "\t", 0 => "\0", '\\' => '\\', '"' => '"');

sub bytes_of
{
	my ($text) = @_;
	$text =~ s/<<(.*?)\*(\d+)>>/$1 x $2/ge;
	$text =~ s/~/\r\n/g;
	$text =~ s/\\(?:x([0-9a-fA-F]{2})|(.))/defined $1 ? chr hex $1 : $BYTE{$2} \/\/ die "bad escape \\$2"/ge;
	return $text;
}

sub read_cases
{
	my (@cases, %seen);
	for my $line (split /\n/, slurp("$FindBin::Bin/http_requests.txt")) {
		next if $line eq '' || $line =~ /^#/;
		my ($label, $name, $text, $why) = split / \| /, $line, 4;
		$label =~ /^(?:rfc|strict|wider)$/ or die "bad label: $line";
		($label eq 'rfc') == !defined $why or die "a reason belongs to all but rfc: $line";
		die "twice: $name" if $seen{$name}++;
		push @cases, { label => $label, name => $name, bytes => bytes_of($text) };
	}
	return @cases;
}

# One line of hex to a program, one line of JSON back, for each case.
sub ask
{
	my ($command, @cases) = @_;
	my $questions = spew(test_path('questions'), join '', map { unpack('H*', $_->{bytes}) . "\n" } @cases);
	open my $out, '-|', "$command <'$questions'" or die "$command: $!";
	my @answers = map { json_decode($_) } <$out>;
	close $out or die "$command: exit $?";
	@answers == @cases or die "$command: " . @answers . ' answers';
	return @answers;
}

my @cases = read_cases();
cmp_ok scalar @cases, '>=', 200, scalar(@cases) . ' requests';
my @ours = ask("'$tool'", @cases);

subtest 'cut at every byte' => sub {
	my @bad = grep { !$ours[$_]{cuts} } 0 .. $#cases;
	is_deeply [ map { $cases[$_]{name} } @bad ], [], 'the same comes out';
};

subtest 'labels' => sub {
	for my $i (0 .. $#cases) {
		my ($case, $our) = ($cases[$i], $ours[$i]);
		is $our->{verdict}, 'refuse', $case->{name} if $case->{label} eq 'strict';
		is $our->{verdict}, 'accept', $case->{name} if $case->{label} eq 'wider';
	}
};

subtest 'a refusal says why' => sub {
	for my $i (grep { $ours[$_]{verdict} eq 'refuse' } 0 .. $#cases) {
		like $ours[$i]{status}, qr/^(?:400|413|414|417|431|501|505)$/, "$cases[$i]{name}: status $ours[$i]{status}";
		like $ours[$i]{reason}, qr/^[A-Z].{10,}\.$/, $ours[$i]{reason};
	}
};

subtest 'beside Node' => sub {
	plan(skip_all => 'Node 20 or newer is not installed') if qx{node -p 'parseInt(process.versions.node) >= 20' 2>&1} !~ /true/;
	my @theirs = ask("node '$FindBin::Bin/http-node.mjs'", @cases);
	chomp(my $node = qx{node -p 'process.versions.llhttp'});
	my ($agree, $differ) = (0, 0);
	for my $i (0 .. $#cases) {
		my ($case, $our, $their) = ($cases[$i], $ours[$i], $theirs[$i]);
		my $same = $our->{verdict} eq $their->{verdict};
		# What was pipelined before a refusal counts as well, but each may be ahead of the other.
		$same &&= json_encode($our->{messages}) eq json_encode($their->{messages}) if $our->{verdict} eq 'accept';
		$same ? $agree++ : $differ++;
		next if $case->{label} ne 'rfc';
		ok $same, $case->{name} or diag 'ours:   ', json_encode($our), "\nNode's: ", json_encode($their);
	}
	note "llhttp $node: agrees on $agree of " . @cases . ", differs on $differ, each explained";
};

subtest 'a daemon answers what it refuses' => sub {
	my $gatewayd = daemon('gatewayd', http => 1, env => { PROVIDER => 'mock', STORE => 'none' });
	for my $i (grep { $ours[$_]{verdict} eq 'refuse' && $ours[$_]{status} !~ /^(?:413|414|431)$/ } 0 .. $#cases) {
		my $c = EG::HTTP->new($gatewayd->url);
		$c->send($cases[$i]{bytes});
		my ($r, $last);
		$last = $r while $r = eval { $c->response };
		is $last->{status}, $ours[$i]{status}, $cases[$i]{name};
		my $error = eval { json_decode($last->{body})->{error} };
		is $error->{message}, $ours[$i]{reason}, 'with the reason, OpenAI-shaped';
		is $last->{headers}{connection}, 'close', 'and is the last on its connection';
		$c->close;
	}
	is http('GET', $gatewayd->url . '/healthz')->{status}, 200, 'and lives';
};

done_testing;
