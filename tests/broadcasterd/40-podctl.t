#!/usr/bin/env perl

# podctl purge and cachectl purge: what is asked for, the table, JSON, exit codes, the token, help in need.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use IPC::Open3 qw(open3);
use Symbol qw(gensym);

my ($pod, $other) = map { fake_pod() } 1 .. 2;
my $secret = 'token-of-the-operator';
my $token_file = spew(test_path('token'), "$secret\n");
my $d = daemon('broadcasterd', http => 1, rpc => 'broadcasterd.sock', env => {
	BROADCASTERD_TARGETS => $pod->address . ' ' . $other->address, BROADCASTERD_TOKEN_FILE => $token_file, BROADCASTERD_JOURNAL => 'none' });

sub ctl
{
	my ($program, $env, @args) = @_;
	local @ENV{ 'RUN_DIR', keys %$env } = (test_dir(), values %$env);
	my $pid = open3(my $in, my $out, my $err = gensym, eg_bin($program), @args);
	close $in;
	local $/;
	my ($o, $e) = (scalar <$out>, scalar <$err>);
	waitpid $pid, 0;
	return ($? >> 8, $o, $e);
}
my %with = (BROADCASTERD_TOKEN => $secret);
sub sent { my %h = map { lc $_->[0] => $_->[1] } @{ ($pod->purges)[-1]{headers} }; return \%h }

my %calls = (podctl => ['purge'], cachectl => [ 'purge', '--url', $d->url ]);
for my $program (sort keys %calls) {
	my @purge = @{ $calls{$program} };
	subtest "$program: table and JSON" => sub {
		my ($code, $out, $err) = ctl($program, \%with, @purge, '/v1/models?a=1');
		is $code, 0, 'all purged' or diag $err;
		is(($pod->purges)[-1]{target}, '/v1/models?a=1', 'the path');
		my @lines = split /\n/, $out;
		like $lines[0], qr/^TARGET\s+RESULT\s+STATUS\s+DETAIL$/, 'head';
		like $lines[1], qr/^127\.0\.0\.1:\d+\s+purged\s+200$/, 'a target';
		is index($lines[0], 'RESULT'), index($lines[2], 'purged'), 'aligned';
		is $lines[3], '2 of 2 targets purged, 2 objects gone.', 'a sentence';
		unlike $out, qr/\033/, 'no colours in a pipe';
		$other->mode(status => 500, body => '{}');
		($code, $out, $err) = ctl($program, \%with, @purge, '--all');
		is $code, 1, 'one failed';
		like $out, qr/failed\s+500\s+500 Internal Server Error$/m, 'which and why';
		like $out, qr/^1 of 2 targets purged, 1 object gone; the others are told again/m, 'what comes next';
		($code, $out, $err) = ctl($program, \%with, @purge, '--json', '--all');
		is $code, 1, 'the same in JSON';
		my $json = json_decode($out);
		is_deeply [ map { $json->{$_} } qw(total success failed purged) ], [ 2, 1, 1, 1 ], 'counts';
		is scalar(@{ $json->{results} }), 2, 'results';
		$other->mode(status => 400, body => '{}');
		($code, $out, $err) = ctl($program, \%with, @purge, '--all');
		is $code, 1, 'one refused';
		like $out, qr/^1 of 2 targets purged, 1 object gone; what was refused is not told again\.$/m, 'what comes next';
		$other->mode;
	};
	subtest "$program: what can be asked for" => sub {
		my $h = 'c' x 64;
		for ([ ['--all'], { 'x-purge-all' => 'true' } ], [ [ '--tag', 'a', '--tag=b', '--model', 'm' ], { 'surrogate-key' => 'a b model:m' } ],
			[ [ '--body-hash', $h ], { 'x-body-hash' => $h } ], [ [ '--key', $h, '--store' ], { 'x-purge-key' => $h, 'x-purge-store' => 'true' } ],
			[ [ '--model=m', '--store' ], { 'surrogate-key' => 'model:m', 'x-purge-store' => 'true' } ]) {
			my ($args, $headers) = @$_;
			my ($code, $out, $err) = ctl($program, \%with, @purge, @$args);
			is $code, 0, "@$args" or diag $err;
			my $sent = sent();
			is_deeply { map { ($_ => $sent->{$_}) } keys %$headers }, $headers, 'as sent';
		}
		for ([ [], qr/what\?/ ], [ [ '--all', '/x' ], qr/only one of/ ], [ [ '/x', '/y' ], qr/only one PATH/ ], [ ['x'], qr/begins with a slash/ ],
			[ [ '--key', 'abc' ], qr/64 hexadecimal digits/ ], [ [ '--tag', 'a', '--store' ], qr/--store takes --all, one --model or --key/ ],
			[ [ '--tag', 'a b' ], qr/a tag has no spaces/ ], [ [ '--tag', "a\r\nX-Purge-All: 1" ], qr/visible ASCII/ ], [ [ '--model', "caf\xc3\xa9" ], qr/visible ASCII/ ],
			[ [ '--tag', 'x' x 257 ], qr/at most 256 bytes/ ], [ ['/a b'], qr/a path has no spaces/ ], [ ["/a\nb"], qr/a path has no spaces/ ], [ ['--nonsense'], qr/nonsense/ ]) {
			my ($args, $why) = @$_;
			my ($code, $out, $err) = ctl($program, \%with, @purge, @$args);
			is $code, 64, "refused: @$args";
			like $err, $why, 'says why';
		}
	};
	subtest "$program: the token" => sub {
		my ($code, $out, $err) = ctl($program, {}, @purge, '--all');
		is $code, 1, 'none';
		like $err, qr/needs the token.*BROADCASTERD_TOKEN.*--token-file/s, 'says how';
		is((ctl($program, {}, @purge, '--all', "--token-file=$token_file"))[0], 0, 'from a file');
		is((ctl($program, { BROADCASTERD_TOKEN_FILE => $token_file }, @purge, '--all'))[0], 0, 'from a file that the environment names');
		($code, $out, $err) = ctl($program, {}, @purge, '--all', '--token-file=/nowhere');
		is $code, 1, 'no such file';
		like $err, qr{/nowhere: No such file}, 'says so';
		my $crlf = spew(test_path('crlf'), "$secret\r\n");
		is((ctl($program, {}, @purge, '--all', "--token-file=$crlf"))[0], 0, 'a file of another system');
		for ([ '', qr/is empty: no token/ ], [ "\r\n", qr/is empty: no token/ ], [ "a\nb\n", qr/no token: one line/ ], [ "a\0b", qr/no token: one line/ ], [ "caf\xe9", qr/no token/ ]) {
			my ($text, $why) = @$_;
			($code, $out, $err) = ctl($program, {}, @purge, '--all', '--token-file=' . spew(test_path('bad'), $text));
			is $code, 1, 'no token in a file';
			like $err, $why, 'says so';
		}
	};
}

subtest 'an address that is no broadcaster' => sub {
	my $gateway = daemon('gatewayd', http => 1, rpc => 'gatewayd.sock', env => { PROVIDER => 'mock', STORE => 'none' });
	my ($code, $out, $err) = ctl('cachectl', \%with, 'purge', '--all', '--url', $gateway->url);
	is $code, 1, 'a gatewayd';
	like $err, qr/^cachectl: This gateway has no purge token/, 'the sentence, not the JSON around it';
	like $err, qr/no broadcaster but a gateway.*PURGE_TOKEN/s, 'and what to do';
	unlike $err, qr/BROADCASTERD_TOKEN/, 'which is not what helps with a broadcaster';
};

subtest 'nobody there' => sub {
	$d->stop;
	unlink test_path('broadcasterd.sock');
	my ($code, $out, $err) = ctl('podctl', \%with, 'purge', '--all');
	is $code, 69, 'podctl';
	like $err, qr/no broadcasterd is running.*make run.*--socket/s, 'says what to do';
	($code, $out, $err) = ctl('cachectl', \%with, 'purge', '--all', '--url', 'http://127.0.0.1:1');
	is $code, 69, 'cachectl';
	like $err, qr/no broadcasterd|cannot be reached/, 'says so';
};

subtest 'completion' => sub {
	my $script = (ctl('podctl', {}, 'completion', 'bash'))[1];
	my $words = `bash -c '@{[ $script =~ s/'/'\\''/gr ]}
COMP_WORDS=(podctl purge --); COMP_CWORD=2; _podctl; echo "\${COMPREPLY[@]}"'`;
	like $words, qr/(?=.*--all)(?=.*--tag)(?=.*--model)(?=.*--store)(?=.*--token-file)/, 'knows the options';
};

done_testing;
